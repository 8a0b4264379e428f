"""Examples that nobody picked: triplets on which two models differ, and nearest neighbours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from likemind.choice import ODD_OF_PAIR
from likemind.reporting.evidence import HELDOUT
from likemind.reporting.maps import by_hash
from likemind.reporting.words import LEVELS

if TYPE_CHECKING:
    from likemind.datasets.evaluation_set import Item
    from likemind.reporting.evidence import Choices, Evidence, Place
    from likemind.reporting.thumbnails import Album

SHOWN_TRIPLETS = 9
SHOWN_ITEMS = 8
NEIGHBOURS = 6
_PAIR_OF_ODD = [ODD_OF_PAIR.index(position) for position in range(3)]

Kind = Literal["after", "before", "neither"]


@dataclass(frozen=True)
class Shown:
    """An item with the symbol of its picture ("" without)."""

    item: Item
    symbol: str
    same_group: bool = False


@dataclass(frozen=True)
class Voice:
    """Whom somebody takes for the odd one out: a share for each item, and the item picked (-1: undecided)."""

    name: str
    shares: list[float]
    pick: int


@dataclass(frozen=True)
class Disagreement:
    """A triplet on which before and after choose differently."""

    number: int
    level: str
    items: list[Shown]
    voices: list[Voice]
    kind: Kind


@dataclass(frozen=True)
class Gallery:
    """A sample of the disagreements with the counts that it was drawn from.

    Attributes:
        before: One model.
        after: The other.
        n: Triplets compared.
        ties: Those left out because a model was undecided.
        counts: Kind → disagreements in which that model is with the observers' majority.
        shown: Kind → how many of them are shown.
        examples: The sample.
    """

    before: Place
    after: Place
    n: int
    ties: int
    counts: dict[Kind, int]
    shown: dict[Kind, int]
    examples: list[Disagreement]

    @property
    def total(self) -> int:
        """All disagreements."""
        return sum(self.counts.values())


def gallery(evidence: Evidence, album: Album, observers: str) -> Gallery | None:
    """Sample disagreements of before and after by the hash of their ids, wins and losses in proportion.

    Returns:
        None where there is no second model or it made no choices.
    """
    before, after = evidence.before, evidence.after
    if after is None or before not in evidence.choices or after not in evidence.choices:
        return None
    one, two = _aligned(evidence.choices[before], evidence.choices[after])
    ties = (one.choice < 0) | (two.choice < 0)
    kinds = kinds_of(one.people, one.choice, two.choice)
    rows: dict[Kind, list[int]] = {"after": [], "before": [], "neither": []}
    for row in np.flatnonzero((one.choice != two.choice) & ~ties):
        rows[kinds[row]].append(int(row))
    counts: dict[Kind, int] = {kind: len(found) for kind, found in rows.items()}
    shares = proportion(counts, SHOWN_TRIPLETS)
    picked = [
        row
        for kind, found in rows.items()
        for row in sorted(found, key=lambda row: _hash(one.items[row]))[: shares[kind]]
    ]
    picked.sort(key=lambda row: _hash(one.items[row]))
    names = (observers, before.label, after.label)
    examples = [_disagreement(evidence, album, one, two, row, kinds[row], names) for row in picked]
    return Gallery(before, after, len(one), int(ties.sum()), counts, shares, examples)


def _aligned(one: Choices, two: Choices) -> tuple[Choices, Choices]:
    """Keep the triplets that both models judged."""
    from dataclasses import fields, replace

    _, first, second = np.intersect1d(one.triplet, two.triplet, return_indices=True)

    def rows(choices: Choices, which: np.ndarray) -> Choices:
        return replace(choices, **{field.name: getattr(choices, field.name)[which] for field in fields(choices)})

    return rows(one, first), rows(two, second)


def kinds_of(people: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[Kind]:
    """Say for each triplet which model chose as the observers' majority did; a tie among observers is no majority.

    Shapes:
        people: (n, 3). before, after: (n,) pairs.
    """
    best = people.max(axis=1)
    majority = np.where((people >= best[:, None] - 1e-9).sum(axis=1) == 1, people.argmax(axis=1), -2)
    return [
        "after" if pair == mine else "before" if pair == theirs else "neither"
        for pair, mine, theirs in zip(majority, after, before, strict=True)
    ]


def proportion(counts: dict[Kind, int], places: int) -> dict[Kind, int]:
    """Share places out by largest remainder; whatever occurs gets at least one.

    Example:
        >>> proportion({"after": 60, "before": 39, "neither": 1}, 6)
        {'after': 3, 'before': 2, 'neither': 1}
    """
    total = sum(counts.values())
    if total <= places:
        return dict(counts)
    quota = {kind: places * number / total for kind, number in counts.items()}
    shares = {kind: min(number, max(1, int(quota[kind]))) for kind, number in counts.items()}
    while sum(shares.values()) != places:
        step = 1 if sum(shares.values()) < places else -1
        open_ = [kind for kind in shares if (shares[kind] < counts[kind] if step > 0 else shares[kind] > 1)]
        chosen = max(open_, key=lambda kind: step * (quota[kind] - shares[kind]))
        shares[chosen] += step
    return shares


def _hash(items: np.ndarray) -> bytes:
    return hashlib.sha256("\n".join(sorted(items)).encode()).digest()


def _disagreement(
    evidence: Evidence, album: Album, one: Choices, two: Choices, row: int, kind: Kind, names: tuple[str, str, str]
) -> Disagreement:
    items = [Shown(evidence.item_of[name], album.symbol(name)) for name in one.items[row]]
    top = np.flatnonzero(one.people[row] >= one.people[row].max() - 1e-9)
    picks = (int(top[0]) if len(top) == 1 else -1, int(one.choice[row]), int(two.choice[row]))
    by_pair = (one.people[row], one.after[row], two.after[row])
    voices = [
        Voice(name, [float(share[pair]) for pair in _PAIR_OF_ODD], ODD_OF_PAIR[pick] if pick >= 0 else -1)
        for name, share, pick in zip(names, by_pair, picks, strict=True)
    ]
    level = LEVELS.get(one.level[row], str(one.level[row]))
    return Disagreement(int(one.triplet[row]), level, items, voices, kind)


@dataclass(frozen=True)
class Ring:
    """An item's nearest neighbours in one embedding, the nearest first."""

    place: Place
    neighbours: list[Shown]

    @property
    def same_group(self) -> int:
        """How many share the item's group."""
        return sum(shown.same_group for shown in self.neighbours)


@dataclass(frozen=True)
class Neighbourhood:
    """An item and its neighbours, before and after."""

    centre: Shown
    rings: list[Ring]


def neighbourhoods(evidence: Evidence, album: Album) -> list[Neighbourhood]:
    """Return the neighbours of the showcase, or of the first held-out items by hash where there is none."""
    places = [place for place in evidence.pair if place in evidence.embeddings]
    named = [name for name in evidence.dataset.get("showcase", []) if name in evidence.item_of]
    chosen = named or [item.id for item in by_hash(evidence.data.select(HELDOUT))]
    if not places or len(evidence.data.items) < 2:
        return []
    return [
        Neighbourhood(
            Shown(evidence.item_of[name], album.symbol(name)), [_ring(evidence, album, place, name) for place in places]
        )
        for name in chosen[:SHOWN_ITEMS]
    ]


def _ring(evidence: Evidence, album: Album, place: Place, name: str) -> Ring:
    embedding, row = evidence.embeddings[place], evidence.row_of[name]
    distance = -(embedding @ embedding[row])
    distance[row] = np.inf
    nearest = [evidence.data.items[other] for other in np.argsort(distance, kind="stable")[:NEIGHBOURS] if other != row]
    group = evidence.item_of[name].group
    return Ring(place, [Shown(item, album.symbol(item.id), bool(group) and item.group == group) for item in nearest])

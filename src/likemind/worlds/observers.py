"""Simulated observers: people who see a tree of meaning, each a little differently, and sometimes do not look.

Nothing here is a recorded human answer. The observers exist so that the whole way from answers to charts can be walked
offline, with a truth that is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.choice import ODD_OF_PAIR, PAIRS, entropy, log_probabilities
from likemind.datasets.evaluation_set import Item, Split
from likemind.errors import LikemindError
from likemind.triplets import LEVELS, Triplets

if TYPE_CHECKING:
    from collections.abc import Sequence

OBSERVERS = 48
"""Size of the population."""

TREE_WEIGHTS = (2.2, 1.2, 0.8, 2.5, 1.0)
"""What it adds to similarity to share: subgroup, group, nature, place in the subgroup's list, words of the name."""

_WEIGHT_SPREAD, _TEMPERATURE_SPREAD, _SPEED_SPREAD = 0.25, 0.2, 0.2
_TASTE, _TASTE_DIMENSIONS = 0.4, 8
_LAPSE_BETA = (3.0, 97.0)
_MEDIAN_SECONDS, _SLOWING, _LAPSE_SECONDS, _TIME_SPREAD = 0.9, 0.9, 0.35, 0.25
_STREAMS: dict[str | None, int] = {None: 1, "train": 2, "validation": 3, "heldout": 4}


@dataclass(frozen=True)
class WorldItem(Item):
    """An item of a made world, with its place in the tree of meaning.

    Attributes:
        order: Rank in its category's list, from 0.
        natural: Grown, and not made by people.
    """

    order: int
    natural: bool


def tree_components(items: Sequence[WorldItem]) -> np.ndarray:
    """Return what each pair of items shares, level by level of the tree.

    Args:
        items: The whole world, m items: a place in a list counts relative to the list's length.

    Returns:
        (m, m, 5), symmetric, each in [0, 1]: same category, same group, both natural or both not, nearness in the
        category's list (squared), share of the name's words in common. The last two are 0 across categories.
    """
    _, category = np.unique([item.category for item in items], return_inverse=True)
    _, group = np.unique([item.group for item in items], return_inverse=True)
    natural = np.array([item.natural for item in items], dtype=bool)
    order = np.array([item.order for item in items])
    last = np.zeros(category.max() + 1)
    np.maximum.at(last, category, order)
    same = category[:, None] == category[None, :]
    gap = np.abs(order[:, None] - order[None, :]) / np.maximum(last[category], 1)[:, None]
    return np.stack(
        [
            same,
            group[:, None] == group[None, :],
            natural[:, None] == natural[None, :],
            np.where(same, (1 - np.minimum(gap, 1)) ** 2, 0),
            np.where(same, _words_in_common(items), 0),
        ],
        axis=-1,
        dtype=np.float64,
    )


def _words_in_common(items: Sequence[WorldItem]) -> np.ndarray:
    names = [sorted(set(item.name.lower().replace(":", " ").split()) - {"with", "of", "and"}) for item in items]
    number = {word: position for position, word in enumerate(sorted({word for name in names for word in name}))}
    has = np.zeros((len(items), len(number)), dtype=np.float32)
    for row, name in enumerate(names):
        has[row, [number[word] for word in name]] = 1
    count = has.sum(axis=1)
    share: np.ndarray = has @ has.T / np.maximum(np.minimum(count[:, None], count[None, :]), 1)
    return share


def tree_similarity(items: Sequence[WorldItem]) -> np.ndarray:
    """Return how similar two items are to an observer without peculiarities.

    Returns:
        (m, m) float64, symmetric, from 0 (nothing shared) to 7.7 (the same item), in nats of the choice model.

    Example:
        >>> ant, bee = (WorldItem(n, n, "bug", "animals", "train", "", k, True) for k, n in enumerate(["ant", "bee"]))
        >>> tree_similarity([ant, bee]).round(1).tolist()
        [[7.7, 4.2], [4.2, 7.7]]
    """
    similarity: np.ndarray = tree_components(items) @ np.array(TREE_WEIGHTS)
    return similarity


@dataclass(frozen=True, eq=False)
class Observers:
    """A population of o simulated observers of a world of m items.

    Attributes:
        components: (m, m, 5), what pairs share, as from ``tree_components``.
        weights: (o, 5), what each observer thinks of each component.
        temperature: (o,), how undecided each is.
        taste: (o, m, 8), each one's private view: its dot products are added to similarity, with a spread of about 0.4.
        lapse: (o,) in (0, 1), how often each answers without looking; a lapse picks one of three at random.
        speed: (o,), multiplies each one's response times.
    """

    components: np.ndarray
    weights: np.ndarray
    temperature: np.ndarray
    taste: np.ndarray
    lapse: np.ndarray
    speed: np.ndarray

    def __len__(self) -> int:
        return len(self.lapse)

    @classmethod
    def draw(cls, items: Sequence[WorldItem], seed: int, *, observers: int = OBSERVERS) -> Observers:
        """Draw a population that depends on the items' number and the seed alone.

        Example:
            >>> ant = WorldItem("ant", "ant", "bug", "animals", "train", "", 0, True)
            >>> len(Observers.draw([ant], seed=0))
            48
        """
        rng = _generator(seed, 0)
        return cls(
            components=tree_components(items),
            weights=np.array(TREE_WEIGHTS) * rng.lognormal(0, _WEIGHT_SPREAD, (observers, len(TREE_WEIGHTS))),
            temperature=rng.lognormal(0, _TEMPERATURE_SPREAD, observers),
            lapse=rng.beta(*_LAPSE_BETA, observers),
            speed=rng.lognormal(0, _SPEED_SPREAD, observers),
            taste=rng.standard_normal((observers, len(items), _TASTE_DIMENSIONS))
            * (_TASTE / _TASTE_DIMENSIONS**0.5) ** 0.5,
        )

    def log_attentive(self, indices: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Return log p(pair) of observers who look.

        Args:
            indices: (n, 3) items.
            who: (n,) the observer of each triplet, or (o, 1) for each of o observers on every triplet.

        Returns:
            (n, 3) or (o, n, 3), in the order 01, 02, 12.
        """
        pairs = []
        for first, second in PAIRS:
            a, b = indices[:, first], indices[:, second]
            seen = (self.weights[who] * self.components[a, b]).sum(axis=-1)
            pairs.append(seen + (self.taste[who, a] * self.taste[who, b]).sum(axis=-1))
        similarity = np.stack(pairs, axis=-1) / self.temperature[who][..., None]
        return log_probabilities(torch.from_numpy(similarity)).numpy()

    def probabilities(self, indices: np.ndarray) -> np.ndarray:
        """Return the whole population's exact distribution over the pairs, lapses included.

        Shapes:
            indices: (n, 3). Returns (n, 3), rows summing to one, every entry above 0.
        """
        everyone = np.arange(len(self))[:, None]
        lapse = self.lapse[:, None, None]
        mean: np.ndarray = ((1 - lapse) * np.exp(self.log_attentive(indices, everyone)) + lapse / 3).mean(axis=0)
        return mean

    def answer(self, indices: np.ndarray, who: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Let one observer answer each triplet.

        The median response time grows with the entropy of the observer's own distribution; lapses are fast.

        Args:
            indices: (n, 3) items.
            who: (n,) the observer of each triplet.
            rng: Draws lapses, choices and times.

        Returns:
            choice (n,) int8, the position 0–2 of the odd one out; response time (n,) in seconds, to the millisecond.
        """
        log_p = self.log_attentive(indices, who)
        lapsed = rng.random(len(who)) < self.lapse[who]
        reached = np.where(lapsed[:, None], [1 / 3, 2 / 3], np.exp(log_p).cumsum(axis=1)[:, :2])
        pair = (rng.random(len(who))[:, None] > reached).sum(axis=1)
        thought = _MEDIAN_SECONDS * np.exp(_SLOWING * entropy(torch.from_numpy(log_p)).numpy())
        median = self.speed[who] * np.where(lapsed, _LAPSE_SECONDS, thought)
        seconds = median * rng.lognormal(0, _TIME_SPREAD, len(who))
        return np.array(ODD_OF_PAIR, dtype=np.int8)[pair], seconds.round(3)


def _generator(seed: int, stream: int) -> np.random.Generator:
    if seed < 0:
        raise LikemindError(f"seed must be 0 or more, got {seed}: choose another")
    return np.random.default_rng([seed, stream])


def sample_triplets(items: Sequence[WorldItem], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw triplets, a third of each level, none twice (in whatever order), with positions and rows shuffled.

    A triplet starts from an item drawn evenly, so that all items serve about equally often. Its level says how many
    categories it has: three (``between_class``), two (``class_border``) or one (``within_class``).

    Args:
        items: What to draw from.
        n: Number of triplets; where it is no multiple of three, the first levels get one more.
        rng: Draws.

    Returns:
        indices (n, 3) int64 positions in ``items``; level (n,) str.

    Raises:
        LikemindError: The items do not have so many different triplets of a level.
    """
    if n < 1:
        raise LikemindError(f"n must be 1 or more, got {n}: ask for at least one triplet")
    _, category = np.unique([item.category for item in items], return_inverse=True)
    possible = _possible(np.bincount(category))
    parts, levels = [], []
    for number, level in enumerate(LEVELS):
        need = (n + 2 - number) // 3
        if need > possible[level]:
            have = f"the {len(items)} items have {possible[level]} different {level} triplets"
            raise LikemindError(f"{have}, {need} are needed: ask for fewer")
        parts.append(_distinct(category, level, need, rng))
        levels.append(np.full(need, level, dtype=object))
    order = rng.permutation(n)
    return rng.permuted(np.concatenate(parts), axis=1)[order], np.concatenate(levels)[order]


def _possible(sizes: np.ndarray) -> dict[str, int]:
    total = int(sizes.sum())
    within = sum(comb(int(size), 3) for size in sizes)
    border = sum(comb(int(size), 2) * (total - int(size)) for size in sizes)
    return {"between_class": comb(total, 3) - border - within, "class_border": border, "within_class": within}


def _distinct(category: np.ndarray, level: str, need: int, rng: np.random.Generator) -> np.ndarray:
    """Draw batches until ``need`` different triplets of a level are there; (need, 3), each row sorted."""
    listed = np.argsort(category, kind="stable")
    sizes = np.bincount(category)
    starts = np.cumsum(sizes) - sizes
    mates = {"between_class": 0, "class_border": 1, "within_class": 2}[level]
    found = np.empty((0, 3), dtype=np.int64)
    while len(found) < need:
        batch = max(2 * need, 256)
        first = rng.integers(len(category), size=batch)
        home = category[first]
        others = [listed[starts[home] + rng.integers(sizes[home])] for _ in range(mates)]
        others += [rng.integers(len(category), size=batch) for _ in range(2 - mates)]
        drawn = np.sort(np.stack([first, *others], axis=1), axis=1)
        kinds = 1 + (np.diff(np.sort(category[drawn], axis=1), axis=1) != 0).sum(axis=1)
        right = (np.diff(drawn, axis=1) > 0).all(axis=1) & (kinds == 3 - mates)
        found = np.concatenate([found, drawn[right]])
        found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
    return found[:need]


def simulate(
    items: Sequence[WorldItem],
    n_triplets: int,
    observers_per_triplet: int,
    seed: int,
    *,
    split: Split | None = None,
) -> Triplets:
    """Let observers answer triplets.

    Args:
        items: The whole world; the population sees it the same way whichever split is asked about.
        n_triplets: Number of different triplets, a third of each level.
        observers_per_triplet: How many different observers answer each triplet, 1 to 48.
        seed: Draws the population, the triplets and the answers.
        split: Draw triplets among this split's items; among all if None.

    Returns:
        n_triplets · observers_per_triplet answers, one triplet's beside each other, with ``probabilities`` (the whole
        population's exact distribution), times in seconds, and ``source`` "simulated".

    Raises:
        LikemindError: Too many triplets or observers are asked for.

    Example:
        >>> def shelf(category, *names):
        ...     return [WorldItem(n, n, category, "all", "train", "", k, False) for k, n in enumerate(names)]
        >>> items = shelf("bug", "ant", "bee", "fly") + shelf("car", "bus", "van", "taxi") + shelf("star", "sun")
        >>> len(simulate(items, 6, 2, seed=0))
        12
    """
    if not 1 <= observers_per_triplet <= OBSERVERS:
        raise LikemindError(
            f"observers_per_triplet must be between 1 and {OBSERVERS}, got {observers_per_triplet}: choose another"
        )
    observers = Observers.draw(items, seed)
    rng = _generator(seed, _STREAMS[split])
    chosen = np.array([position for position, item in enumerate(items) if split in (None, item.split)], dtype=np.int64)
    drawn, level = sample_triplets([items[position] for position in chosen], n_triplets, rng)
    indices = chosen[drawn]
    ranked = rng.permuted(np.tile(np.arange(len(observers)), (n_triplets, 1)), axis=1)
    who = ranked[:, :observers_per_triplet].reshape(-1)
    rows = np.repeat(np.arange(n_triplets), observers_per_triplet)
    choice, seconds = observers.answer(indices[rows], who, rng)
    return Triplets(
        [item.id for item in items],
        indices[rows],
        choice=choice,
        probabilities=observers.probabilities(indices)[rows],
        response_time=seconds,
        participant=np.array([f"observer-{number:02d}" for number in range(len(observers))], dtype=object)[who],
        level=level[rows],
        source="simulated",
    )

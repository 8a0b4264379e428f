"""A contact sheet of the clusters that ``label`` found: what the teacher takes to lie together."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from likemind.artifacts import read_run
from likemind.reporting.examples import Shown
from likemind.reporting.maps import by_hash
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike
    from likemind.datasets.evaluation_set import Item
    from likemind.reporting.evidence import Evidence
    from likemind.reporting.thumbnails import Album

SHOWN_CLUSTERS = 12
SHOWN_MEMBERS = 8
_FEWEST = 3


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        number: As ``label`` numbered it.
        size: Images in it.
        known: How many of them the evaluation set has.
        name: The group that most of these belong to, "" where none holds more than half of them.
        members: Those shown.
    """

    number: int
    size: int
    known: int
    name: str
    members: list[Shown]


@dataclass(frozen=True)
class Sheet:
    """The contact sheet.

    Attributes:
        clusters: Those shown, the largest first.
        total: Clusters that there are.
        images: Images in all of them.
    """

    clusters: list[Cluster]
    total: int
    images: int


def labels_key(labels: PathLike | None) -> str:
    """Return the key of an output of ``label``, "" without one.

    Raises:
        LikemindError: It is something else.
    """
    return "" if labels is None else str(read_run(labels, verb="label")["key"])


def contact_sheet(evidence: Evidence, album: Album, labels: PathLike | None) -> Sheet | None:
    """Choose clusters and members by hash; None where fewer than three images of any are in the evaluation set."""
    if labels is None:
        return None
    table = read_table(Path(labels) / "clusters.parquet")
    names, numbers = table.column("id").to_pylist(), table.column("cluster").to_pylist()
    sizes = Counter(numbers)
    members: dict[int, list[Item]] = {}
    for name, number in zip(names, numbers, strict=True):
        if name in evidence.item_of:
            members.setdefault(number, []).append(evidence.item_of[name])
    enough = [number for number, found in members.items() if len(found) >= _FEWEST]
    chosen = sorted(enough, key=lambda number: _hash(members[number]))[:SHOWN_CLUSTERS]
    clusters = [
        Cluster(number, sizes[number], len(members[number]), _name(members[number]), _shown(members[number], album))
        for number in sorted(chosen, key=lambda number: (-sizes[number], number))
    ]
    return Sheet(clusters, len(sizes), len(names)) if clusters else None


def _hash(items: Sequence[Item]) -> bytes:
    return hashlib.sha256("\n".join(sorted(item.id for item in items)).encode()).digest()


def _shown(items: Sequence[Item], album: Album) -> list[Shown]:
    return [Shown(item, album.symbol(item.id)) for item in by_hash(items)[:SHOWN_MEMBERS]]


def _name(items: Sequence[Item]) -> str:
    """Name the category, else the group, that more than half of the items belong to."""
    for names in ([item.category for item in items], [item.group for item in items]):
        name, number = max(Counter(names).items(), key=lambda pair: (pair[1], pair[0]))
        if name and 2 * number > len(names):
            return name
    return ""

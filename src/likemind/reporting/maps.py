"""The held-out items on a plane, before and after."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likemind.reporting.evidence import HELDOUT, groups_of
from likemind.reporting.thumbnails import SMALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.evaluation_set import Item
    from likemind.evaluation.results import Score
    from likemind.reporting.evidence import Evidence, Place
    from likemind.reporting.thumbnails import Album

SIDE = 640
GROUP_COLOURS = 8
_MOST_ITEMS = 700


@dataclass(frozen=True)
class Point:
    """An item on the map: place in SVG units, group colour, and the symbol of its picture ("" without)."""

    item: Item
    row: int
    x: float
    y: float
    group: int
    symbol: str


@dataclass(frozen=True)
class Map:
    """One model's map."""

    place: Place
    points: list[Point]
    grouping: Score | None


@dataclass(frozen=True)
class Maps:
    """The maps and what they share.

    Attributes:
        maps: Before and, where there is a second model, after.
        groups: Names of the groups that have a colour; the others are grey.
        others: There are groups without a colour.
        radius: Of a point, in SVG units.
        shown: Items drawn.
        n: Held-out items.
        method: How the plane was found.
    """

    maps: list[Map]
    groups: list[str]
    others: bool
    radius: float
    shown: int
    n: int
    method: str

    @property
    def named(self) -> list[tuple[str, list[str]]]:
        """Every group with the names of its items, for those who read rather than point."""
        names: dict[str, list[str]] = {}
        for point in self.maps[0].points:
            names.setdefault(point.item.group, []).append(point.item.name)
        return [(group or "no group", sorted(found)) for group, found in sorted(names.items())]


def draw_maps(evidence: Evidence, album: Album) -> Maps | None:
    """Lay out the held-out items before and after; None without embeddings or with under four items."""
    places = [place for place in evidence.pair if place in evidence.embeddings]
    heldout = evidence.data.select(HELDOUT)
    if not places or len(heldout) < 4:
        return None
    items = by_hash(heldout)[:_MOST_ITEMS]
    items.sort(key=lambda item: evidence.row_of[item.id])
    rows = [evidence.row_of[item.id] for item in items]
    groups = groups_of(items, GROUP_COLOURS)
    planes = [plane(evidence.embeddings[place][rows]) for place in places]
    maps = []
    for place, laid in zip(places, planes, strict=True):
        spread = fit(turn(laid, planes[0]), margin=24)
        points = [_point(item, row, xy, groups, album) for item, row, xy in zip(items, rows, spread, strict=True)]
        maps.append(Map(place, points, evidence.score(place, "grouping.ami")))
    others = len({item.group for item in items}) > len(groups)
    radius = round(float(np.clip(205 / np.sqrt(len(items)), 7.5, 16)), 1)
    method = "t-SNE of cosine distances" if len(items) >= 10 else "principal components"
    return Maps(maps, groups, others, radius, len(items), len(heldout), method)


def _point(item: Item, row: int, xy: np.ndarray, groups: list[str], album: Album) -> Point:
    group = groups.index(item.group) if item.group in groups else GROUP_COLOURS
    return Point(item, row, round(float(xy[0]), 1), round(float(xy[1]), 1), group, album.symbol(item.id, SMALL))


def by_hash(items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of their ids' hashes: arbitrary, but nobody's choice."""
    return sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())


def plane(embedding: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay unit vectors out on a plane: t-SNE started from the principal components, these alone under ten rows.

    Shapes:
        embedding: (n, d). Returns (n, 2) float64, centred, of unit spread.
    """
    from sklearn.manifold import TSNE

    wide = embedding.astype(np.float64)
    wide -= wide.mean(axis=0)
    left, size, _ = np.linalg.svd(wide, full_matrices=False)
    laid = left[:, :2] * size[:2]
    if len(wide) >= 10 and size[0] > 0:
        start = laid / (laid[:, 0].std() or 1.0) * 1e-4
        perplexity = min(30.0, (len(wide) - 1) / 3)
        laid = (
            TSNE(init=start, perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(wide).astype(np.float64)
        )
    if laid.shape[1] < 2:
        laid = np.column_stack([laid, np.zeros(len(laid))])
    laid = laid - laid.mean(axis=0)
    return np.asarray(laid / (laid.std() or 1.0))


def turn(laid: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Rotate or mirror one plane towards another, so that the eye can compare them; distances stay."""
    from scipy.linalg import orthogonal_procrustes

    rotation, _ = orthogonal_procrustes(laid, reference)
    return np.asarray(laid @ rotation)


def fit(laid: np.ndarray, margin: float) -> np.ndarray:
    """Scale a plane into the square of ``SIDE``, keeping its proportions."""
    low, high = laid.min(axis=0), laid.max(axis=0)
    scale = (SIDE - 2 * margin) / (float((high - low).max()) or 1.0)
    return np.asarray((laid - (low + high) / 2) * scale + SIDE / 2)

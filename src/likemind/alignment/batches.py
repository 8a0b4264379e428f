"""Which images, which triplets: a pure function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from likemind.alignment.recipe import Recipe
    from likemind.triplets import Triplets


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's work.

    Attributes:
        images: (b,) positions in the collection, each once.
        triplets: (t, 3) positions in ``images``.
        similarities: (t, 3) labels from a file; None where the target is computed on the fly.
    """

    images: np.ndarray
    triplets: np.ndarray
    similarities: np.ndarray | None = None


def packed_batch(clusters: np.ndarray, recipe: Recipe, seed: int, step: int) -> Batch:
    """Draw a group of images from several clusters, and many triplets among them.

    Clusters are drawn evenly from those with two images or more. Half of the triplets lie at cluster borders (two
    images of one cluster, one of another), half are any three.

    Args:
        clusters: (n,) cluster of each image of the collection.
        recipe: Says how many images, clusters and triplets.
        seed: Of the run.
        step: From 0.
    """
    rng = np.random.default_rng([seed, step])
    usable = _usable(clusters)
    count = max(2, min(recipe.clusters, len(usable), recipe.images // 2))  # each must give two images
    chosen = rng.choice(usable, count, replace=False)
    share = max(2, -(-recipe.images // count))
    groups = [_some(rng, np.flatnonzero(clusters == c), share) for c in chosen]
    images = np.concatenate(groups)
    group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    border = _border(rng, group_of, recipe.triplets // 2)
    return Batch(images, np.concatenate([border, any_three(rng, len(images), recipe.triplets - len(border))]))


def _some(rng: np.random.Generator, members: np.ndarray, count: int) -> np.ndarray:
    chosen: np.ndarray = rng.permutation(members)[:count]
    return chosen


def any_three(rng: np.random.Generator, images: int, count: int) -> np.ndarray:
    """Draw triplets of any three different images, (count, 3)."""
    first = rng.integers(images, size=count)
    second = (first + 1 + rng.integers(images - 1, size=count)) % images
    low, high = np.minimum(first, second), np.maximum(first, second)
    third = rng.integers(images - 2, size=count)
    third += third >= low
    third += third >= high
    return np.stack([first, second, third], axis=1)


def _border(rng: np.random.Generator, group_of: np.ndarray, count: int) -> np.ndarray:
    sizes = np.bincount(group_of)
    starts = np.cumsum(sizes) - sizes
    first = rng.integers(len(group_of), size=count)
    own = group_of[first]
    offset = first - starts[own]
    second = starts[own] + (offset + 1 + rng.integers(sizes[own] - 1)) % sizes[own]
    outside = rng.integers(len(group_of) - sizes[own])
    third = outside + np.where(outside >= starts[own], sizes[own], 0)
    return np.stack([first, second, third], axis=1)


@lru_cache(maxsize=2)
def _order(seed: int, number: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(count)


def fresh_batch(grouped: tuple[np.ndarray, np.ndarray], recipe: Recipe, seed: int, step: int) -> Batch:
    """Draw three images a triplet, half of the triplets at cluster borders, half any three, as in packed batches.

    Args:
        grouped: From ``by_cluster``.
        recipe: Says how many triplets.
        seed: Of the run.
        step: From 0.
    """
    rng = np.random.default_rng([seed, step])
    order, group_of = grouped
    border = _border(rng, group_of, recipe.triplets // 2)
    places = np.concatenate([border, any_three(rng, len(order), recipe.triplets - len(border))])
    images, flat = np.unique(order[places], return_inverse=True)
    return Batch(images, flat.reshape(-1, 3))


def by_cluster(clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of all images whose cluster has two or more, a cluster after another, and their groups.

    Raises:
        LikemindError: Fewer than two clusters have two images.
    """
    usable = _usable(clusters)
    kept = np.flatnonzero(np.isin(clusters, usable))
    order = kept[np.argsort(clusters[kept], kind="stable")]
    return order, np.searchsorted(usable, clusters[order])


def _usable(clusters: np.ndarray) -> np.ndarray:
    usable = np.flatnonzero(np.bincount(clusters) > 1)
    if len(usable) < 2:
        raise LikemindError(
            "batches need two clusters with two images each: give more images, or --triplets, labels with fewer "
            "clusters"
        )
    return usable


def independent_batch(labels: Triplets, positions: np.ndarray, recipe: Recipe, seed: int, step: int) -> Batch:
    """Take the next triplets of a shuffled pass over labelled ones, as the paper does.

    Args:
        labels: With ``similarities``.
        positions: (n, 3) positions of their items in the collection.
        recipe: Says how many triplets.
        seed: Of the run.
        step: From 0.
    """
    rows = np.arange(step * recipe.triplets, (step + 1) * recipe.triplets)
    passes, places = np.divmod(rows, len(labels))
    chosen = np.empty(len(rows), dtype=np.int64)
    for number in np.unique(passes):
        here = passes == number
        chosen[here] = _order(seed, int(number), len(labels))[places[here]]
    images, flat = np.unique(positions[chosen], return_inverse=True)
    assert labels.similarities is not None
    return Batch(images, flat.reshape(-1, 3), labels.similarities[chosen])

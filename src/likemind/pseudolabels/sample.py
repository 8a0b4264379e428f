"""Which triplets to label. Every sampler draws exactly ``n`` different triplets, as a function of the seed alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from likemind.errors import LikemindError

Draw = Callable[[np.random.Generator, int], np.ndarray]
_MAX_ROUNDS = 200
_AT_LEAST = 4096
"""Draws a round, so that the last of few possible triplets are found too."""


def cluster_border(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw two images from one cluster and one from another (AligNet's ``cluster_border_500``).

    The pair's cluster is drawn evenly from those with at least two images, the third image's evenly from all others,
    and images evenly within their cluster; so every cluster is asked about equally often, whatever its size.

    Args:
        labels: (images,) cluster of each image.
        n: Triplets to draw.
        seed: Decides the result, with the labels.

    Returns:
        (n, 3) int32; the image of the other cluster stands last.

    Raises:
        LikemindError: There are not that many different triplets, or no cluster has two images.
    """
    sizes = np.bincount(labels)
    members = np.argsort(labels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    filled, paired = np.flatnonzero(sizes > 0), np.flatnonzero(sizes > 1)
    if len(paired) == 0 or len(filled) < 2:
        raise LikemindError("cluster_border needs two clusters, one of them with two images: give fewer --clusters")
    possible = int((sizes * (sizes - 1) // 2 * (len(labels) - sizes)).sum())

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        pair = paired[rng.integers(len(paired), size=count)]
        other = filled[rng.integers(len(filled) - 1, size=count)]
        other = np.where(other == pair, filled[-1], other)
        first = rng.integers(sizes[pair])
        second = (first + 1 + rng.integers(sizes[pair] - 1)) % sizes[pair]
        places = starts[pair] + first, starts[pair] + second, starts[other] + rng.integers(sizes[other])
        triplets: np.ndarray = np.stack([members[place] for place in places], axis=1)
        return triplets

    return _distinct(draw, n, possible, len(labels), seed)


def uniform(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw any three different images evenly; clusters play no part.

    Args, returns and errors as for ``cluster_border``.
    """
    images = len(labels)
    if images < 3:
        raise LikemindError(f"{images} images make no triplet: give at least three")

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        rows = rng.integers(images, size=(count, 3))
        different = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
        triplets: np.ndarray = rows[different]
        return triplets

    return _distinct(draw, n, images * (images - 1) * (images - 2) // 6, images, seed)


SAMPLERS: dict[str, Callable[..., np.ndarray]] = {"cluster_border": cluster_border, "uniform": uniform}


def _distinct(draw: Draw, n: int, possible: int, images: int, seed: int) -> np.ndarray:
    """Draw until ``n`` different triplets are there, keeping the order in which they first came."""
    if not 1 <= n <= possible:
        raise LikemindError(
            f"{n} triplets were asked for and {possible} different ones exist: give --n between 1 and that"
        )
    rng = np.random.default_rng(seed)
    drawn = np.empty((0, 3), dtype=np.int64)
    for _ in range(_MAX_ROUNDS):
        missing = n - len(drawn)
        if missing == 0:
            return drawn.astype(np.int32)
        drawn = np.concatenate([drawn, draw(rng, max(missing + missing // 8, _AT_LEAST))])
        _, first = np.unique(_names(drawn, images), return_index=True)
        drawn = drawn[np.sort(first)[:n]]
    raise LikemindError(f"{n} of {possible} different triplets could not be drawn evenly: give a smaller --n")


def _names(triplets: np.ndarray, images: int) -> np.ndarray:
    """One number for each set of three; images up to 2.6 million fit into 64 bits."""
    low, middle, high = np.sort(triplets.astype(np.uint64), axis=1).T
    names: np.ndarray = (low * np.uint64(images) + middle) * np.uint64(images) + high
    return names

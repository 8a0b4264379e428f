"""Which triplets to label. Every sampler draws exactly ``n`` different triplets, as a function of the seed alone.

The first argument of a sampler is the group of each image: its cluster, or its class for ``between_class``,
``within_class`` and ``class_border`` (the levels of Levels, Muttenthaler et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from likemind.errors import LikemindError

Draw = Callable[[np.random.Generator, int], np.ndarray]
_MAX_ROUNDS = 200
_AT_LEAST = 4096
"""Draws a round, so that the last of few possible triplets are found too."""
_AT_MOST = 1 << 18
"""Draws a round, so that they stay in the processor's cache."""


class _Groups:
    """Images by group, and even draws from them."""

    def __init__(self, labels: np.ndarray) -> None:
        self.sizes = np.bincount(labels)
        self.members = np.argsort(labels, kind="stable").astype(np.int32)
        self.starts = np.cumsum(self.sizes) - self.sizes

    def of_at_least(self, images: int) -> np.ndarray:
        """Return the groups with so many images."""
        return np.flatnonzero(self.sizes >= images)

    def image(self, rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
        """Draw an image of each of these groups, evenly."""
        drawn: np.ndarray = self.members[self.starts[groups] + _below(rng, self.sizes[groups])]
        return drawn

    def images(self, rng: np.random.Generator, groups: np.ndarray, count: int) -> list[np.ndarray]:
        """Draw two or three different images of each of these groups, evenly."""
        sizes, starts = self.sizes[groups], self.starts[groups]
        first = _below(rng, sizes)
        second = _below(rng, sizes - 1)
        second += second >= first
        places = [first, second]
        if count == 3:
            low, high = np.minimum(first, second), np.maximum(first, second)
            third = _below(rng, sizes - 2)
            third += third >= low
            third += third >= high
            places.append(third)
        return [self.members[starts + place] for place in places]


def _below(rng: np.random.Generator, limits: np.ndarray) -> np.ndarray:
    """Draw a whole number below each limit; even to one part in 2⁵³ / limit."""
    numbers: np.ndarray = (rng.random(len(limits)) * limits).astype(np.int64)
    return numbers


def cluster_border(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw two images from one group and one from another (AligNet's ``cluster_border_500``, and ``class_border``).

    The pair's group is drawn evenly from those with at least two images, the third image's evenly from all others,
    and images evenly within their group; so every group is asked about equally often, whatever its size, until its
    triplets run out.

    Args:
        labels: (images,) cluster or class of each image, whole numbers from 0.
        n: Triplets to draw.
        seed: Decides the result, with the labels.

    Returns:
        (n, 3) int32, in the order in which they were drawn; the image of the other group stands last.

    Raises:
        LikemindError: There are not that many different triplets, or none.
    """
    groups = _Groups(labels)
    filled, paired = groups.of_at_least(1), groups.of_at_least(2)
    if len(paired) == 0 or len(filled) < 2:
        raise LikemindError("this sampling needs two clusters, one of them with two images: give fewer --clusters")
    sizes = groups.sizes
    possible = int((sizes * (sizes - 1) // 2 * (len(labels) - sizes)).sum())

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        pair = paired[rng.integers(len(paired), size=count)]
        other = filled[rng.integers(len(filled) - 1, size=count)]
        other = np.where(other == pair, filled[-1], other)
        return np.stack([*groups.images(rng, pair, 2), groups.image(rng, other)], axis=1)

    return _distinct(draw, n, possible, seed)


def between_class(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw three images from three groups.

    The groups are drawn evenly, and an image evenly within each. Args, returns and errors as for ``cluster_border``.
    """
    groups = _Groups(labels)
    filled = groups.of_at_least(1)
    if len(filled) < 3:
        raise LikemindError(
            f"between_class needs three classes or clusters, got {len(filled)}: choose another sampling"
        )
    one, two, three = (sum(int(size) ** power for size in groups.sizes) for power in (1, 2, 3))
    possible = (one**3 - 3 * one * two + 2 * three) // 6

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        rows = filled[_three(rng, len(filled), count)]
        return np.stack([groups.image(rng, rows[:, k]) for k in range(3)], axis=1)

    return _distinct(draw, n, possible, seed)


def within_class(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw three images from one group.

    The group is drawn evenly from those with at least three images, and images evenly within it. Args, returns and
    errors as for ``cluster_border``.
    """
    groups = _Groups(labels)
    large = groups.of_at_least(3)
    if len(large) == 0:
        raise LikemindError("within_class needs a class or cluster with three images: choose another sampling")
    possible = sum(size * (size - 1) * (size - 2) // 6 for size in groups.sizes.tolist())

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        return np.stack(groups.images(rng, large[rng.integers(len(large), size=count)], 3), axis=1)

    return _distinct(draw, n, possible, seed)


def uniform(labels: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw any three different images evenly; groups play no part.

    Args, returns and errors as for ``cluster_border``.
    """
    images = len(labels)
    if images < 3:
        raise LikemindError(f"{images} images make no triplet: give at least three")

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        return _three(rng, images, count)

    return _distinct(draw, n, images * (images - 1) * (images - 2) // 6, seed)


SAMPLERS: dict[str, Callable[..., np.ndarray]] = {
    "cluster_border": cluster_border,
    "uniform": uniform,
    "between_class": between_class,
    "within_class": within_class,
    "class_border": cluster_border,
}
OF_CLASSES = ("between_class", "within_class", "class_border")


def _three(rng: np.random.Generator, limit: int, count: int) -> np.ndarray:
    """Draw rows of three different numbers below ``limit``; those that repeat one are left out."""
    rows = rng.integers(limit, size=(count, 3), dtype=np.int32)
    different = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
    kept: np.ndarray = rows[different]
    return kept


def _distinct(draw: Draw, n: int, possible: int, seed: int) -> np.ndarray:
    """Draw until ``n`` different triplets are there, keeping the order in which they first came."""
    if not 1 <= n <= possible:
        raise LikemindError(
            f"{n} triplets were asked for and {possible} different ones exist: give --n between 1 and that"
        )
    rng = np.random.default_rng(seed)
    found = np.empty((n, 3), dtype=np.int32)
    table = np.full(1 << max(4, (2 * n - 1).bit_length()), -1, dtype=np.int64 if n >= 2**31 else np.int32)
    count = 0
    for _ in range(_MAX_ROUNDS + 2 * n // _AT_MOST):
        if count == n:
            return found
        missing = n - count
        drawn = draw(rng, min(max(missing + missing // 8, _AT_LEAST), _AT_MOST))
        count = _keep_new(drawn, found, count, table)
    if count == n:
        return found
    raise LikemindError(f"{n} of {possible} different triplets could not be drawn evenly: give a smaller --n")


@numba.njit(cache=True)
def _keep_new(drawn: np.ndarray, found: np.ndarray, count: int, table: np.ndarray) -> int:
    """Append the drawn triplets that ``found[:count]`` lacks, as sets, until it is full; return its new count.

    ``table`` is a hash table with open addressing: the row of ``found`` at each place, or -1.
    """
    mask = np.uint64(len(table) - 1)
    for t in range(len(drawn)):
        if count == len(found):
            break
        low, middle, high = _in_order(drawn[t, 0], drawn[t, 1], drawn[t, 2])
        mixed = (np.uint64(low) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(middle) * np.uint64(0xC2B2AE3D27D4EB4F))
        mixed = (mixed ^ (mixed >> np.uint64(29))) + np.uint64(high) * np.uint64(0x165667B19E3779F9)
        place = (mixed ^ (mixed >> np.uint64(32))) & mask
        while table[place] >= 0:
            row = found[table[place]]
            if (low, middle, high) == _in_order(row[0], row[1], row[2]):
                break
            place = (place + np.uint64(1)) & mask
        if table[place] < 0:
            table[place] = count
            found[count, 0], found[count, 1], found[count, 2] = drawn[t, 0], drawn[t, 1], drawn[t, 2]
            count += 1
    return count


@numba.njit(cache=True)
def _in_order(a: int, b: int, c: int) -> tuple[int, int, int]:
    low, high = min(a, b), max(a, b)
    return min(low, c), max(low, min(high, c)), max(high, c)

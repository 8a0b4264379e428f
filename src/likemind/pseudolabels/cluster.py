"""k-means over teacher features: which images lie together, before anyone is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch

from likemind.distributed import Over, here
from likemind.errors import LikemindError
from likemind.pseudolabels.blocks import BLOCK, SHARD, Rows, blocks, let_go, shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_SAMPLE = 8192
"""Rows that the start is chosen from, at least, where there are so many."""

_MAX_ITER = 100
_TOLERANCE = 1e-4
_ROUNDING = 2.0**-9
"""Largest relative error of a number rounded to bfloat16."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of images.

    Attributes:
        labels: (n,) int32, the cluster of each row. No cluster is empty.
        inertia: Sum of squared distances to the clusters' means.
        iterations: Passes over all rows.
    """

    labels: np.ndarray
    inertia: float
    iterations: int

    @property
    def sizes(self) -> np.ndarray:
        """Number of images in each cluster, (k,)."""
        return np.bincount(self.labels)


def cluster(features: np.ndarray, k: int, *, seed: int, over: Over = here) -> Clusters:
    """Partition rows into ``k`` clusters by k-means: Lloyd's iterations over all rows.

    The start is greedy k-means++ (Arthur & Vassilvitskii 2007), and Lloyd's iterations, on 8,192 rows or 32 a cluster
    drawn at random (all rows, where there are no more). The centres are then learned from all rows. Both stop when an
    iteration lowers the inertia by less than 0.01 %, or after 100. A cluster left without rows gets the row that lies
    farthest from its centre, so that there are always ``k``.

    Rows are read a block at a time and may be memory-mapped. Each is given to the nearest centre in float32: on a
    processor with AVX-512-BF16, bfloat16 finds the centres that can be nearest within its error, float32 decides.
    Another engine than this process (``over``) finds the nearest centres of shards; sums are kept up to date here, in
    the order of rows, so that the result is the same.

    Shapes:
        features: (n, d), float16 or float32 (wider becomes float32).

    Raises:
        LikemindError: Fewer rows than clusters, or rows that are not finite.

    Example:
        >>> cluster(np.array([[0.0], [0.1], [9.0]]), 2, seed=0).sizes.tolist() in ([2, 1], [1, 2])
        True
    """
    if not 2 <= k <= len(features):
        raise LikemindError(
            f"{len(features)} images cannot be put into {k} clusters: give --clusters between 2 and their number"
        )
    mean = _mean(features)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(features), size=min(len(features), max(_SAMPLE, 32 * k)), replace=False))
    sample = features[chosen].astype(np.float32) - mean
    let_go(features)
    centres = _start(sample, k, rng)
    if len(sample) < len(features):
        first = _Partition(sample, np.zeros_like(mean), k)
        first.learn(centres)
        centres = first.centres
    partition = _Partition(features, mean, k, over)
    iterations = partition.learn(centres)
    return Clusters(labels=partition.labels, inertia=partition.inertia, iterations=iterations)


def _mean(features: np.ndarray) -> np.ndarray:
    """Return the mean row, float32: distances do not depend on it, and rounding errors are smallest around it."""
    total = np.zeros(features.shape[1])
    for _, block in blocks(features):
        total += block.sum(axis=0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise LikemindError("the features to be clustered are not finite: embed the images again")
    mean: np.ndarray = (total / len(features)).astype(np.float32)
    return mean


def _start(rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Choose k rows far apart: each the best of 2 + ln k that are drawn by squared distance to those chosen so far."""
    squares = np.einsum("ij,ij->i", rows, rows)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    drawn = np.array(chosen)
    while True:
        distances = squares + (squares[drawn][:, None] - 2 * (rows[drawn] @ rows.T))
        closer = np.minimum(nearest, np.maximum(distances, 0))
        best = int(closer.sum(axis=1, dtype=np.float64).argmin())
        chosen[-1], nearest = int(drawn[best]), closer[best]
        if len(chosen) == k:
            centres: np.ndarray = rows[chosen]
            return centres
        reached = np.cumsum(nearest, dtype=np.float64)
        drawn = np.searchsorted(reached, rng.random(2 + int(math.log(k))) * reached[-1], side="right")
        drawn = np.minimum(drawn, len(rows) - 1)  # all distances zero: fewer different rows than clusters
        chosen.append(-1)


class _Partition:
    """Rows, less their mean, given to clusters; kept up to date as rows move."""

    def __init__(self, features: np.ndarray, mean: np.ndarray, k: int, over: Over = here) -> None:
        self.features, self.mean, self.over = features, mean, over
        self.labels = np.full(len(features), -1, dtype=np.int32)
        self.sums = np.zeros((k, features.shape[1]))
        self.sizes = np.zeros(k, dtype=np.int64)
        self.squares = 0.0

    @property
    def centres(self) -> np.ndarray:
        """The clusters' means, float32."""
        means: np.ndarray = (self.sums / self.sizes[:, None]).astype(np.float32)
        return means

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the means: what the rows' squares exceed those of the means by."""
        return max(0.0, self.squares - float(((self.sums**2).sum(axis=1) / self.sizes).sum()))

    def learn(self, centres: np.ndarray) -> int:
        """Give every row to the nearest centre and take the means as centres, until that gains little."""
        self.squares = sum(float(np.einsum("ij,ij->", x, x, dtype=np.float64)) for _, x in self._blocks())
        before = math.inf
        for iteration in range(1, _MAX_ITER + 1):
            moved = self._assign(centres)
            self._refill(centres)
            if not moved or before - self.inertia <= _TOLERANCE * self.inertia:
                return iteration
            before, centres = self.inertia, self.centres
        return _MAX_ITER

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        return blocks(self.features, self.mean)

    def _assign(self, centres: np.ndarray) -> int:
        if self.over is here:  # a block is read once
            nearest = _Nearest(centres)
            return sum(_move(x, nearest(x), self.labels[rows], self.sums, self.sizes) for rows, x in self._blocks())
        found = np.empty_like(self.labels)
        plan = _Assignment(Rows(self.features), self.mean, centres)
        for start, part in self.over(_Assignment.shard, plan, shards(len(found))):
            found[start : start + SHARD] = part
        moved = np.flatnonzero(found != self.labels)
        for start in range(0, len(moved), BLOCK):
            rows = moved[start : start + BLOCK]
            x = np.subtract(self.features[rows], self.mean, dtype=np.float32)
            _move(x, found[rows], self.labels[rows], self.sums, self.sizes)
        self.labels[:] = found
        let_go(self.features)
        return len(moved)

    def _refill(self, centres: np.ndarray) -> None:
        """Give each empty cluster the row farthest from its centre, of those that are not alone in their cluster."""
        empty = np.flatnonzero(self.sizes == 0)
        if not len(empty):
            return
        away = np.concatenate([np.square(x - centres[self.labels[rows]]).sum(axis=1) for rows, x in self._blocks()])
        farthest = iter(np.argsort(-away, kind="stable"))
        for target in empty:
            row = next(row for row in farthest if self.sizes[self.labels[row]] > 1)
            x = self.features[row : row + 1].astype(np.float32) - self.mean
            _move(x, np.array([target], dtype=np.int32), self.labels[row : row + 1], self.sums, self.sizes)


@dataclass
class _Assignment:
    """Rows to be given to the nearest centres."""

    rows: Rows
    mean: np.ndarray
    centres: np.ndarray

    @cached_property
    def nearest(self) -> _Nearest:
        return _Nearest(self.centres)

    def shard(self, start: int) -> np.ndarray:
        """Return the nearest centre of each row of a shard."""
        parts = blocks(self.rows.array, self.mean, start, start + SHARD)
        return np.concatenate([self.nearest(x) for _, x in parts])


class _Nearest:
    """Finds each row's nearest centre: the largest x·c − |c|²/2."""

    def __init__(self, centres: np.ndarray) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.narrow = self.device.type == "cpu" and _has_bfloat16()
        self.centres = centres
        self.half = np.square(centres).sum(axis=1) / 2
        turned = torch.from_numpy(np.ascontiguousarray(centres.T))
        self.turned: Tensor = turned.bfloat16() if self.narrow else turned.to(self.device)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(rows)
        if self.narrow:
            found = np.empty(len(rows), dtype=np.int32)
            _decide((x.bfloat16() @ self.turned).float().numpy(), rows, self.centres, self.half, found)
            return found
        scores = x.to(self.device) @ self.turned - torch.from_numpy(self.half).to(self.device)
        nearest: np.ndarray = scores.argmax(dim=1).int().cpu().numpy()
        return nearest


def _has_bfloat16() -> bool:
    from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]

    return bool(get_host_cpu_features().get("avx512bf16", False))


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@numba.njit(cache=True)
def _decide(products: np.ndarray, rows: np.ndarray, centres: np.ndarray, half: np.ndarray, found: np.ndarray) -> None:
    """Choose among the centres that rounding cannot rule out, by float32 dot products.

    A product of bfloat16 numbers errs by at most 2ε|x||c| for its factors and ε|product| for itself, ε = 2⁻⁹.
    """
    epsilon = np.float32(1.01 * _ROUNDING)
    lengths = 2 * np.sqrt(2 * half)
    for i in range(len(rows)):
        length = np.sqrt(_dot(rows[i], rows[i]))
        floor = best = np.float32(-np.inf)
        for j in range(len(half)):
            error = epsilon * (length * lengths[j] + abs(products[i, j]))
            floor = max(floor, products[i, j] - half[j] - error)
        for j in range(len(half)):
            error = epsilon * (length * lengths[j] + abs(products[i, j]))
            if products[i, j] - half[j] + error >= floor:
                exact = _dot(rows[i], centres[j]) - half[j]
                if exact > best:
                    best, found[i] = exact, j


@numba.njit(cache=True)
def _move(rows: np.ndarray, target: np.ndarray, labels: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> int:
    """Move rows to their new clusters (from none, if -1); return how many moved."""
    moved = 0
    for i in range(len(rows)):
        old, new = labels[i], target[i]
        if old != new:
            moved += 1
            labels[i] = new
            sizes[new] += 1
            for d in range(rows.shape[1]):
                sums[new, d] += rows[i, d]
            if old >= 0:
                sizes[old] -= 1
                for d in range(rows.shape[1]):
                    sums[old, d] -= rows[i, d]
    return moved

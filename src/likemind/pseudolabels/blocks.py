"""Rows a block at a time, so that a store of any size is never in memory whole; shards are several blocks."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1024
"""Rows of a block. Fixed, so that what is computed from blocks is the same bytes whoever asks."""

SHARD = 64 * BLOCK
"""Rows that are worked on at once, after which their pages need not stay."""


def shards(rows: int, size: int = SHARD) -> range:
    """Return where shards begin."""
    return range(0, rows, size)


@dataclass(frozen=True)
class Rows:
    """An array's rows. One that is mapped from a file is mapped again by another process, and not sent there."""

    array: np.ndarray

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell where the array is."""
        if isinstance(self.array, np.memmap):
            return mapped, (self.array.filename, self.array.dtype, self.array.shape, self.array.offset)
        return Rows, (self.array,)


def mapped(path: Any, dtype: np.dtype, shape: tuple[int, ...], offset: int = 0) -> Rows:
    """Map rows from a file."""
    return Rows(np.memmap(path, dtype=dtype, mode="r", shape=shape, offset=offset))


def blocks(
    features: np.ndarray, mean: np.ndarray | float = 0.0, start: int = 0, stop: int | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each block's place and its rows less ``mean``, as float32, in a buffer that the next block reuses.

    Blocks are those of all rows, from ``start`` (a block's beginning) until ``stop``. Pages of a memory-mapped array
    are let go after use.
    """
    stop = len(features) if stop is None else min(stop, len(features))
    buffer = np.empty((min(BLOCK, len(features)), *features.shape[1:]), dtype=np.float32)
    for first in range(start, stop, BLOCK):
        rows = slice(first, min(first + BLOCK, stop))
        block = buffer[: rows.stop - first]
        np.subtract(features[rows], mean, out=block, casting="same_kind")
        yield rows, block
        if rows.stop % SHARD == 0:
            let_go(features)
    let_go(features)


def let_go(features: np.ndarray) -> None:
    """Tell the system that the pages of a memory-mapped array need not stay in memory; they can be read again.

    So of each array that was joined.
    """
    for part in getattr(features, "parts", [features]):
        base: Any = part.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)

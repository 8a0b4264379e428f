"""Rows of features a block at a time, so that a store of any size is never in memory whole."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1024
"""Rows of a block. Fixed, so that what is computed from blocks is the same bytes whoever asks."""

_KEPT = 64
"""Blocks whose pages may stay."""


def blocks(features: np.ndarray, mean: np.ndarray | float = 0.0) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each block's place and its rows less ``mean``, as float32, in a buffer that the next block reuses.

    Pages of a memory-mapped array are let go after use.
    """
    buffer = np.empty((min(BLOCK, len(features)), *features.shape[1:]), dtype=np.float32)
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        block = buffer[: rows.stop - start]
        np.subtract(features[rows], mean, out=block, casting="same_kind")
        yield rows, block
        if start // BLOCK % _KEPT == _KEPT - 1:
            let_go(features)
    let_go(features)


def let_go(features: np.ndarray) -> None:
    """Tell the system that the pages of a memory-mapped array need not stay in memory; they can be read again."""
    base: Any = features.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)

"""Answers that can be fitted: whole numbers, three different items, distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from likemind.errors import LikemindError


def checked(
    indices: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, objects: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return triplets, people's shares and the answers behind each as arrays that can be fitted, or refuse."""
    rows = checked_triplets(indices, objects)
    if not len(rows):
        raise LikemindError("there are no answers: give at least one triplet")
    shares = np.asarray(targets)
    if shares.shape != rows.shape:
        raise LikemindError(f"targets need the shape {rows.shape}, got {shares.shape}: give three shares a triplet")
    total = shares.sum(axis=1)
    _refuse(~(np.abs(total - 1) < 1e-3) | ~(shares >= 0).all(axis=1), "targets are not a distribution", "mend them")
    if weights is None:
        return rows, shares, None
    counts = np.asarray(weights, dtype=np.float64)
    if counts.shape != (len(rows),):
        raise LikemindError(f"weights need the shape {(len(rows),)}, got {counts.shape}: give one a triplet")
    _refuse(~np.isfinite(counts) | ~(counts > 0), "the weight is not a positive number", "remove the triplet")
    return rows, shares, counts


def checked_triplets(indices: np.ndarray, objects: int | None) -> np.ndarray:
    """Return (n, 3) positions of three different items each, or refuse."""
    rows = np.asarray(indices)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise LikemindError(f"triplets need the shape (n, 3), got {rows.shape}: give three items a row")
    if rows.dtype.kind not in "iu":
        raise LikemindError(f"indices must be whole numbers, got {rows.dtype}: give positions of items")
    _refuse((rows < 0).any(axis=1), "an index is negative", "count items from 0")
    if objects is not None:
        _refuse((rows >= objects).any(axis=1), f"an index is beyond the {objects} items", "count items from 0")
    a, b, c = rows.T
    _refuse((a == b) | (a == c) | (b == c), "an item is repeated", "remove it: a triplet needs three different items")
    return rows


def _refuse(wrong: Any, what: str, mend: str) -> None:
    if wrong.any():
        raise LikemindError(f"triplet {int(np.flatnonzero(wrong)[0])} (counting from 0): {what}; {mend}")

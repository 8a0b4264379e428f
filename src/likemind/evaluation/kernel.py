"""Choices on millions of triplets over few items: every pair's similarity once, then three look-ups a triplet."""

from __future__ import annotations

import numba
import numpy as np

from likemind.choice import TIE

MOST = 20_000
"""Items up to which all similarities are held (1.6 GB in float32)."""


def choices(embedding: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """Return the pair of each triplet with the largest dot product, or -1 for a tie: ``choice.choose`` of them.

    The dot products of all m items with each other are taken once, in float32; a tie is a difference of the two best
    under 1e-6 of their size, or NaN.

    Args:
        embedding: (m, d) rows; of unit length for cosines. At most 20,000.
        triplets: (n, 3) rows of the embedding.

    Returns:
        (n,) int8: 0, 1, 2 for the pairs 01, 02, 12.

    Example:
        >>> choices(np.array([[1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32), np.array([[0, 1, 2], [2, 0, 1]]))
        array([0, 2], dtype=int8)
    """
    rows = np.ascontiguousarray(embedding, dtype=np.float32)
    out = np.empty(len(triplets), dtype=np.int8)
    _choose(rows @ rows.T, np.ascontiguousarray(triplets), np.float32(TIE), out)
    return out


@numba.njit(cache=True)
def _choose(gram: np.ndarray, triplets: np.ndarray, tie: np.float32, out: np.ndarray) -> None:
    for t in range(len(triplets)):
        a, b, c = triplets[t, 0], triplets[t, 1], triplets[t, 2]
        ab, ac, bc = gram[a, b], gram[a, c], gram[b, c]
        pair, best, second = 0, ab, max(ac, bc)
        if ac > best:
            pair, best, second = 1, ac, max(ab, bc)
        if bc > best:
            pair, best, second = 2, bc, max(ab, ac)
        clear = best - second > tie * max(abs(best), abs(second))  # false for NaN too
        out[t] = pair if clear and not np.isnan(ab + ac + bc) else -1

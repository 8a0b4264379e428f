"""Resampling of units with replacement: sums over each sample, without keeping the samples."""

from __future__ import annotations

import numba
import numpy as np

SAMPLES = 1000

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)


@numba.njit(inline="always")
def _mixed(state: np.uint64) -> np.uint64:
    """Return splitmix64's output for a state (Steele, Lea, Flood 2014)."""
    z = (state ^ (state >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True)
def _draw(n: int, start: np.uint64, out: np.ndarray) -> None:
    """Write n rows drawn evenly from 0…n−1, two from each random number."""
    state, wide = start, np.uint64(n)
    for k in range(0, n, 2):
        state += _GOLDEN
        z = _mixed(state)
        out[k] = ((z >> np.uint64(32)) * wide) >> np.uint64(32)
        if k + 1 < n:
            out[k + 1] = ((z & _LOW) * wide) >> np.uint64(32)


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _sums(columns: np.ndarray, starts: np.ndarray, sums: np.ndarray) -> None:
    n = len(columns)
    rows = np.empty(n, dtype=np.uint32)
    for sample in range(len(starts)):
        _draw(n, starts[sample], rows)
        for column in range(columns.shape[1]):
            total = 0.0
            for k in range(n):
                total += columns[rows[k], column]
            sums[sample, column] = total


def _starts(n: int, seed: int, samples: int) -> np.ndarray:
    return np.random.default_rng([seed, n]).integers(2**64, size=samples, dtype=np.uint64)


def draws(n: int, seed: int, sample: int, samples: int = SAMPLES) -> np.ndarray:
    """Return the rows that one sample of n units holds, (n,); the same for whatever is measured on them."""
    rows = np.empty(n, dtype=np.uint32)
    _draw(n, _starts(n, seed, samples)[sample], rows)
    return rows


def bootstrap_sums(columns: np.ndarray, seed: int, samples: int = SAMPLES) -> np.ndarray:
    """Return the sum of each column over each sample of as many rows, drawn with replacement (Efron 1979).

    Shapes:
        columns: (n, k); n below 2³². Returns (samples, k) float64.

    Example:
        >>> bootstrap_sums(np.ones((4, 1)), seed=0, samples=2)
        array([[4.],
               [4.]])
    """
    sums = np.empty((samples, columns.shape[1]))
    _sums(np.asfortranarray(columns, dtype=np.float64), _starts(len(columns), seed, samples), sums)
    return sums

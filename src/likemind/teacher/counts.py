"""Repeated answers, counted, and how far counts of few answers are drawn towards "no idea"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from likemind.triplets import Triplets

_BOUNDS = (1e-3, 1e4)


def count_answers(judgements: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """Return each distinct triplet once, with how often each pair was chosen.

    Returns:
        indices (n, 3) with each row sorted; counts (n, 3) by pair of the sorted row.
    """
    indices, share, answers = judgements.targets()
    return indices, share * answers[:, None]


def concentration(counts: np.ndarray) -> float:
    """Return the maximum-likelihood concentration a of a symmetric Dirichlet over people's distributions.

    A triplet's counts are Dirichlet-multinomial: log p(c) = Σ_k log Γ(c_k + a) − log Γ(n + 3a) + log Γ(3a) − 3 log Γ(a)
    + const (Minka 2000, "Estimating a Dirichlet distribution"). A triplet that was answered once says nothing of a.

    Args:
        counts: (n, 3), not negative.

    Returns:
        Between 0.001 (people always agree) and 10 000 (they answer at random); 0, no shrinkage, without repeats.

    Example:
        >>> concentration(np.array([[1, 0, 0], [0, 1, 0]]))
        0.0
        >>> round(concentration(np.array([[3, 1, 0], [0, 4, 0], [1, 1, 2]])), 2)
        0.76
    """
    from scipy.optimize import minimize_scalar

    asked = _checked(counts)
    patterns, times = np.unique(np.sort(asked[asked.sum(axis=1) > 1], axis=1), axis=0, return_counts=True)
    if not len(patterns):
        return 0.0
    found = minimize_scalar(
        lambda log_a: -float(times @ log_likelihood(patterns, math.exp(log_a))),
        bounds=[math.log(bound) for bound in _BOUNDS],
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(found.x))


def log_likelihood(counts: np.ndarray, a: float) -> np.ndarray:
    """Return log p of each row of counts, (n,), in one order of the answers, under the concentration a > 0."""
    from scipy.special import gammaln

    total = counts.sum(axis=1)
    each: np.ndarray = (gammaln(counts + a) - gammaln(a)).sum(axis=1) - gammaln(total + 3 * a) + gammaln(3 * a)
    return each


def shrunk(counts: np.ndarray, a: float | None = None) -> np.ndarray:
    """Return the posterior mean distribution over the pairs, (c + a) / (n + 3a).

    Args:
        counts: (n, 3), at least one answer a row.
        a: The concentration; fitted to the counts if None.

    Example:
        >>> shrunk(np.array([[3, 1, 0]]), a=1.0).round(3)
        array([[0.571, 0.286, 0.143]])
    """
    asked = _checked(counts)
    drawn = concentration(asked) if a is None else a
    if not (math.isfinite(drawn) and drawn >= 0):
        raise LikemindError(f"the concentration must be finite and at least 0, got {a}: mend it")
    distribution: np.ndarray = (asked + drawn) / (asked.sum(axis=1, keepdims=True) + 3 * drawn)
    return distribution


def _checked(counts: np.ndarray) -> np.ndarray:
    asked = np.asarray(counts, dtype=np.float64)
    if asked.ndim != 2 or asked.shape[1] != 3:
        raise LikemindError(f"counts need the shape (n, 3), got {asked.shape}: give a count for each pair")
    wrong = ~np.isfinite(asked).all(axis=1) | (asked < 0).any(axis=1) | ~(asked.sum(axis=1) > 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise LikemindError(f"counts of triplet {row} (counting from 0) are not finite, negative, or all 0: remove it")
    return asked

"""How well can anybody do? What people's own answers say of the best score that a model can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from likemind.evaluation.odd_one_out import Trials


def accuracy_ceiling(trials: Trials, mask: np.ndarray) -> float | None:
    """Return the ceiling of the share of answers matched, on the triplets of a mask; None where no triplet is repeated.

    It is how often an answer is the most frequent one among those of all other people: a person is left out at a time
    (an answer, where people are not told apart). Equally frequent ones share the credit, and answers to triplets that
    nobody else answered do not count. THINGS' published ceiling, .673, is the mean share of the most frequent answer
    itself (Hebart et al. 2020), which comes out a little higher, the more so the fewer the answers are.
    """
    right, answers = against_others(trials)
    return float(right[mask].sum() / answers[mask].sum()) if answers[mask].any() else None


def against_others(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Compare each person's answers with the most frequent answer of all others.

    Returns:
        (n,) credit by triplet, and (n,) the number of answers behind it.
    """
    clusters, n = trials.clusters, len(trials.triplets)
    person = clusters.person if clusters.crossed else np.arange(len(clusters.triplet))
    cell, of = np.unique(person * n + clusters.triplet, return_inverse=True)
    own = np.bincount(of.reshape(-1) * 3 + clusters.pair, minlength=3 * len(cell)).reshape(-1, 3)
    triplet = cell % n
    every = np.bincount(clusters.triplet * 3 + clusters.pair, minlength=3 * n).reshape(n, 3)
    others = every[triplet] - own
    best = (others == others.max(axis=1, keepdims=True)) & (others.sum(axis=1, keepdims=True) > 0)
    credit = (own * best).sum(axis=1) / np.maximum(best.sum(axis=1), 1)
    counted = own.sum(axis=1) * best.any(axis=1)
    return np.bincount(triplet, credit, minlength=n), np.bincount(triplet, counted, minlength=n)


def majority(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Return the answer that most people gave, 1 at its pair (n, 3), and (n,) whether there is one: ties have none."""
    most = trials.people == trials.people.max(axis=1, keepdims=True)
    return most.astype(np.float64), most.sum(axis=1) == 1

"""Is a model as sure as it is right, measured against people's choice rates?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likemind.evaluation.intervals import Clustered, mean_estimate
from likemind.evaluation.odd_one_out import mean

if TYPE_CHECKING:
    from likemind.evaluation.intervals import Estimate, Intervals
    from likemind.evaluation.odd_one_out import Trials

BINS = 15


def expected_calibration_error(
    probabilities: np.ndarray,
    trials: Trials,
    seed: int,
    *,
    adaptive: bool = False,
    intervals: Intervals = "clustered",
) -> Estimate:
    """Return Σ_bins (share of triplets) · |mean confidence − mean agreement|, over 15 bins of confidence.

    Confidence is the model's largest probability; agreement is people's probability of that same choice, where the
    usual definition (Guo et al. 2017, eq. 3) has right or wrong. Scatter within bins adds to it, so that a perfectly
    calibrated model scores a little above 0.

    Args:
        probabilities: (n, 3) the model's.
        trials: People's answers to the same triplets.
        seed: Of the resampling.
        adaptive: Bins of equally many triplets (Nixon et al. 2019) instead of equal width.
        intervals: ``clustered`` or ``independent``.

    Returns:
        An estimate between 0 and 1; lower is better.
    """
    confidence = probabilities.max(axis=1)
    if adaptive:
        bins = np.empty(len(confidence), dtype=int)
        bins[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * BINS // len(confidence)
    else:
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = confidence[:, None] - _chosen(probabilities)
    of_bin = np.bincount(bins, (trials.people * gap).sum(axis=1), minlength=BINS)
    value = float(np.abs(of_bin).sum() / len(confidence))
    return _linear(value, np.sign(of_bin)[bins, None] * gap - value, trials, seed, intervals)


def negative_log_likelihood(
    log_p: np.ndarray, trials: Trials, seed: int, *, intervals: Intervals = "clustered"
) -> Estimate:
    """Return the mean cross-entropy of people's distribution under the model's, in nats; lower is better.

    Shapes:
        log_p: (n, 3).
    """
    return mean(-log_p, trials, seed, None, intervals)


def brier_score(
    probabilities: np.ndarray, trials: Trials, seed: int, *, intervals: Intervals = "clustered"
) -> Estimate:
    """Return the mean over answers of the squared distance from the answer, Σ_pairs (p − 1[answer])² (Brier 1950).

    Guessing gives 2/3; knowing people's distribution P gives the mean of 1 − Σ P², the least that can be had.

    Shapes:
        probabilities: (n, 3). Returns an estimate between 0 and 2; lower is better.
    """
    by_pair = 1 - 2 * probabilities + np.square(probabilities).sum(axis=1, keepdims=True)
    return mean(by_pair, trials, seed, None, intervals)


def risk_coverage_area(
    probabilities: np.ndarray, trials: Trials, seed: int, *, intervals: Intervals = "clustered"
) -> Estimate:
    """Return the area under the risk–coverage curve (Geifman and El-Yaniv 2017).

    Risk at a coverage is people's mean disagreement with the model on that share of triplets of which it is surest;
    the area is its mean over all coverages. Triplets of equal confidence share their mean. The standard error takes
    into account that the order depends on the sample, with the risk at the threshold smoothed over a tenth of the
    triplets.

    Shapes:
        probabilities: (n, 3). Returns an estimate between 0 and 1; lower is better.
    """
    n = len(probabilities)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    by_pair = (1 - _chosen(probabilities))[order]
    loss = (trials.people[order] * by_pair).sum(axis=1)
    confidence = probabilities.max(axis=1)[order]
    _, tied = np.unique(-confidence, return_inverse=True)
    even = (np.bincount(tied, loss) / np.bincount(tied))[tied]
    covered = np.arange(1, n + 1)
    risk = np.cumsum(even) / covered
    at_threshold = _smoothed(loss, max(n // 10, 1))
    tail = np.cumsum((1 / covered)[::-1])[::-1]
    lost = np.cumsum((at_threshold / covered)[::-1])[::-1]
    influence = np.empty_like(by_pair)
    influence[order] = by_pair * tail[:, None] - lost[:, None]
    influence -= (trials.people * influence).sum(axis=1).mean()
    return _linear(float(risk.mean()), influence, trials, seed, intervals)


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over the nearest ``width`` on both sides."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - width, 0), np.minimum(at + width + 1, len(values))
    smooth: np.ndarray = (total[last] - total[first]) / (last - first)
    return smooth


def _chosen(probabilities: np.ndarray) -> np.ndarray:
    picked: np.ndarray = (probabilities.argmax(axis=1)[:, None] == np.arange(3)).astype(np.float64)
    return picked


def _linear(value: float, influence: np.ndarray, trials: Trials, seed: int, intervals: Intervals) -> Estimate:
    """Return a smooth function of means, with how much an answer moves it, (n, 3) of mean zero."""
    n = len(influence)
    if intervals == "clustered":
        return Clustered(value, n, influence / n, trials.clusters)
    return mean_estimate(value + (trials.people * influence).sum(axis=1), seed)

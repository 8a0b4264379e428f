"""Is a model as sure as it is right, measured against people's choice rates?"""

from __future__ import annotations

import numpy as np

from likemind.evaluation.intervals import Estimate, mean_estimate, resample

BINS = 15


def expected_calibration_error(probabilities: np.ndarray, people: np.ndarray, seed: int) -> Estimate:
    """Return Σ_bins (share of triplets) · |mean confidence − mean agreement|, over 15 equal bins of confidence.

    Confidence is the model's largest probability; agreement is people's probability of that same choice, where the
    usual definition (Guo et al. 2017, eq. 3) has right or wrong.

    Shapes:
        probabilities: (n, 3). people: (n, 3). Returns an estimate between 0 and 1; lower is better.
    """
    confidence, right = probabilities.max(axis=1), people[np.arange(len(people)), probabilities.argmax(axis=1)]
    inside = np.minimum((confidence * BINS).astype(int), BINS - 1)[:, None] == np.arange(BINS)
    gap = (inside * (confidence - right)[:, None]).astype(np.float32)
    replicates = np.abs(resample(len(people), seed) @ gap).sum(axis=1) / len(people)
    return Estimate(float(np.abs(gap.mean(axis=0)).sum()), replicates, len(people))


def negative_log_likelihood(log_p: np.ndarray, people: np.ndarray, seed: int) -> Estimate:
    """Return the mean cross-entropy of people's distribution under the model's, in nats; lower is better.

    Shapes:
        log_p: (n, 3). people: (n, 3).
    """
    return mean_estimate(-(people * log_p).sum(axis=1), seed)

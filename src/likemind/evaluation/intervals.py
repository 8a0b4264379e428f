"""Bootstrap intervals, paired between models: everybody is resampled in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from likemind.evaluation.results import Comparison, Verdict

SAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and what it would have been on resampled data.

    Attributes:
        value: On the data as they are.
        replicates: (samples,) on data resampled with a given seed, so that two models' can be subtracted.
        n: Units resampled.
    """

    value: float
    replicates: np.ndarray
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval."""
        low, high = np.nanpercentile(self.replicates, [2.5, 97.5])
        return float(low), float(high)


@lru_cache(maxsize=16)
def resample(n: int, seed: int, samples: int = SAMPLES) -> np.ndarray:
    """Return how often each of n units is drawn in each sample, (samples, n) float32, rows summing to n."""
    return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float32)


def mean_estimate(values: np.ndarray, seed: int, mask: np.ndarray | None = None) -> Estimate:
    """Return the mean over units, with replicates.

    Shapes:
        values: (n,), one a unit. mask: (n,), the units that count; all are resampled together.
    """
    inside = np.ones(len(values), dtype=np.float32) if mask is None else mask.astype(np.float32)
    counts = resample(len(values), seed)
    total, drawn = counts @ (values * inside), counts @ inside
    replicates = np.where(drawn > 0, total / np.maximum(drawn, 1), np.nan)
    return Estimate(float(values[inside > 0].mean()), replicates, int(inside.sum()))


def compare(
    model: str, against: str, metric: str, ours: Estimate, theirs: Estimate, *, higher_is_better: bool
) -> Comparison:
    """Return the paired difference ours − theirs with its 95 % interval, and what it says."""
    difference = Estimate(ours.value - theirs.value, ours.replicates - theirs.replicates, ours.n)
    low, high = difference.interval
    verdict: Verdict = "no difference seen"
    if low > 0 or high < 0:
        verdict = "better" if (low > 0) == higher_is_better else "worse"
    return Comparison(
        model=model,
        against=against,
        metric=metric,
        difference=difference.value,
        low=low,
        high=high,
        n=ours.n,
        verdict=verdict,
    )

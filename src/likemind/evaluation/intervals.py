"""95 % intervals of estimates and of paired differences, and what a family of differences says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import numpy as np

from likemind.evaluation.bootstrap import bootstrap_sums
from likemind.evaluation.results import Comparison, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.evaluation.clusters import Clusters

Intervals = Literal["clustered", "independent"]
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Estimate(ABC):
    """A number, and how sure it is.

    Attributes:
        value: On the data as they are.
        n: Units behind it.
    """

    value: float
    n: int

    @property
    @abstractmethod
    def error(self) -> tuple[float, int]:
        """The standard error, and its degrees of freedom."""

    @abstractmethod
    def minus(self, other: Self) -> Self:
        """Return the paired difference from an estimate of the same kind on the same units."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval: here Student's, around the value."""
        from scipy.stats import t

        error, freedom = self.error
        half = float(t.ppf(1 - LEVEL / 2, freedom)) * error
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided, that the true value is zero."""
        from scipy.stats import t

        error, freedom = self.error
        if error == 0 or not np.isfinite(error):
            return 1.0 if self.value == 0 or error != 0 else 0.0
        return float(2 * t.sf(abs(self.value) / error, freedom))


E = TypeVar("E", bound=Estimate)


@dataclass(frozen=True, eq=False)
class Replicated(Estimate):
    """An estimate with what it would have been on resampled data.

    Attributes:
        replicates: (samples,) on data resampled with a given seed, so that two models' can be subtracted.
    """

    replicates: np.ndarray

    def minus(self, other: Self) -> Self:
        """Return the paired difference."""
        return type(self)(self.value - other.value, self.n, self.replicates - other.replicates)


@dataclass(frozen=True, eq=False)
class Resampled(Replicated):
    """An estimate whose interval holds the middle 95 % of its replicates."""

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of the replicates."""
        low, high = np.nanpercentile(self.replicates, [2.5, 97.5])
        return float(low), float(high)

    @property
    def error(self) -> tuple[float, int]:
        """The replicates' standard deviation."""
        return float(np.nanstd(self.replicates)), max(self.n - 1, 1)


@dataclass(frozen=True, eq=False)
class Crossed(Estimate):
    """An estimate with replicates over stimuli, over people, and over both at once.

    Resampling both at once counts the scatter of single answers three times. The variance is therefore
    2 (V(stimuli) + V(people)) − V(both), but neither below one of the first two nor above the last (Schütt, Kipnis,
    Diedrichsen and Kriegeskorte 2023, eLife).

    Attributes:
        stimuli, people, both: (samples,) each.
        fewest: The smaller number of stimuli and people.
    """

    stimuli: np.ndarray
    people: np.ndarray
    both: np.ndarray
    fewest: int

    @property
    def error(self) -> tuple[float, int]:
        """The corrected standard error."""
        stimuli, people, both = (float(np.nanvar(part)) for part in (self.stimuli, self.people, self.both))
        largest = max(stimuli, people)
        variance = min(max(2 * (stimuli + people) - both, largest), max(both, largest))
        return float(np.sqrt(variance)), max(self.fewest - 1, 1)

    def minus(self, other: Self) -> Self:
        """Return the paired difference."""
        parts = self.stimuli - other.stimuli, self.people - other.people, self.both - other.both
        return type(self)(self.value - other.value, self.n, *parts, self.fewest)


@dataclass(frozen=True, eq=False)
class Clustered(Estimate):
    """An estimate on triplets that share images, and people.

    Attributes:
        influence: (t, 3) by pair: how much an answer for the pair moves the value, were it the triplet's only one.
        clusters: What the answers share.
    """

    influence: np.ndarray
    clusters: Clusters

    @property
    def error(self) -> tuple[float, int]:
        """What the clusters make of the influences."""
        return self.clusters.error(self.influence)

    def minus(self, other: Self) -> Self:
        """Return the paired difference."""
        return type(self)(self.value - other.value, self.n, self.influence - other.influence, self.clusters)


def mean_estimate(values: np.ndarray, seed: int, weights: np.ndarray | None = None) -> Resampled:
    """Return the (weighted) mean over independent units; all are resampled together.

    Shapes:
        values: (n,), one a unit. weights: (n,), such as a mask of those that count.
    """
    inside = np.ones(len(values)) if weights is None else weights.astype(np.float64)
    total, drawn = bootstrap_sums(np.stack([values * inside, inside], axis=1), seed).T
    replicates = np.where(drawn > 0, total / np.where(drawn > 0, drawn, 1), np.nan)
    return Resampled(float(values @ inside / inside.sum()), int(np.count_nonzero(inside)), replicates)


def clustered_mean(by_pair: np.ndarray, clusters: Clusters, weights: np.ndarray | None = None) -> Clustered:
    """Return the (weighted) mean over triplets of what their answers are worth.

    Shapes:
        by_pair: (t, 3) worth of an answer for each pair. weights: (t,), such as a mask of triplets that count.
    """
    inside = np.ones(len(by_pair)) if weights is None else weights.astype(np.float64)
    share = inside / inside.sum()
    value = float(share @ (clusters.people * by_pair).sum(axis=1))
    return Clustered(value, int(np.count_nonzero(inside)), share[:, None] * (by_pair - value), clusters)


def compare(model: str, against: str, metric: str, ours: E, theirs: E, *, higher_is_better: bool) -> Comparison:
    """Return the paired difference ours − theirs with its 95 % interval, and what it says alone."""
    difference = ours.minus(theirs)
    low, high = difference.interval
    return Comparison(
        model=model,
        against=against,
        metric=metric,
        difference=difference.value,
        low=low,
        high=high,
        n=ours.n,
        verdict=_verdict(low, high, higher_is_better=higher_is_better),
        p_value=difference.p_value,
    )


def _verdict(low: float, high: float, *, higher_is_better: bool) -> Verdict:
    if low > 0 or high < 0:
        return "better" if (low > 0) == higher_is_better else "worse"
    return "no difference seen"


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Add the verdicts that stand when all metrics of a family are looked at together (Holm 1979).

    With many metrics one in twenty differs by chance. After the correction, the chance that any verdict of the family
    other than “no difference seen” is false is at most 5 %, however the metrics hang together.
    """
    adjusted = holm([one.p_value if one.p_value is not None else 1.0 for one in comparisons])
    return [
        one.model_copy(update={"verdict_corrected": one.verdict if p <= LEVEL else "no difference seen"})
        for one, p in zip(comparisons, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    grown = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(grown, 1.0)
    return [float(p) for p in adjusted]

"""Representational similarity analysis: are the pairs that people find unlike also far apart in the embedding?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from scipy.stats import rankdata

from likemind.errors import LikemindError
from likemind.evaluation.intervals import Estimate
from likemind.evaluation.odd_one_out import ranks
from likemind.student.model import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.readers.ratings import RatingMatrix

Coefficient = Literal["spearman", "pearson"]
COEFFICIENTS: tuple[Coefficient, ...] = ("spearman", "pearson")


def averaged(rows: np.ndarray, data: EvaluationSet, names: Sequence[str]) -> np.ndarray:
    """Return a unit row a name, the mean over its items; NaN for a name that has none.

    Shapes:
        rows: (items, d), in the order of ``data.items``. Returns (names, d) float32.
    """
    found = data.rows_of(names)
    none = np.full(rows.shape[1], np.nan)
    return unit(np.stack([rows[found[name]].mean(axis=0) if name in found else none for name in names]))


def dissimilarities(embedding: np.ndarray) -> np.ndarray:
    """Return 1 − cosine of all pairs, (m, m) float64.

    Rounded to seven digits, so that what float32 rows leave of equal values is a tie, and a constant stays one.

    Shapes:
        embedding: (m, d), any length a row.
    """
    rows = embedding.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    distance: np.ndarray = np.round(1 - rows @ rows.T, 7)
    return distance


@dataclass(frozen=True, eq=False)
class Rated(Estimate):
    """A correlation over pairs of items, with one person's ratings or the mean over several people's.

    Attributes:
        influence: (people, pairs): how much a person's rating of a pair moves the value.
        first, second: (pairs,) the items.
    """

    influence: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @property
    def error(self) -> tuple[float, int]:
        """The standard error over items, and over people where there are several: each counts once."""
        over_pairs = self.influence.sum(axis=0)
        variance, floor = self._over_items(over_pairs), float(over_pairs @ over_pairs)
        people = len(self.influence)
        if people > 1:
            by_person = self.influence.sum(axis=1)
            of_people = float(by_person @ by_person) * people / (people - 1)
            variance += of_people - sum(self._over_items(own, corrected=False) for own in self.influence)
            floor = max(floor, of_people)
        return float(np.sqrt(max(variance, floor))), max(min(self.n, people if people > 1 else self.n) - 1, 1)

    def _over_items(self, influence: np.ndarray, *, corrected: bool = True) -> float:
        """Return Σ ψ_s ψ_t over all pairs s, t that share an item (Aronow, Samii and Assenova 2015).

        An item stands in 2/m of the pairs whose mean was taken off; (m/(m−2))² makes up for it.
        """
        by_item = np.bincount(self.first, influence, self.n) + np.bincount(self.second, influence, self.n)
        factor = (self.n / (self.n - 2)) ** 2 if corrected else 1.0
        return factor * float(by_item @ by_item) - float(influence @ influence)

    def minus(self, other: Self) -> Self:
        """Return the paired difference."""
        left = self.influence - other.influence
        return type(self)(self.value - other.value, self.n, left, self.first, self.second)


class RatedPairs:
    """People's dissimilarities of m items, ready to be correlated with many models'.

    Of one matrix, the value is its correlation with the model's over all pairs of different items (Nili et al. 2014);
    of several people's matrices, the mean of theirs. The interval generalises to other items, and to other people where
    there are several. Constant dissimilarities correlate with nothing: 0.

    Args:
        people: One matrix, or one a person; all about the same items in the same order; m ≥ 3.
        coefficient: ``spearman`` or ``pearson``.

    Raises:
        LikemindError: The people rated different items.

    Example:
        >>> from likemind.readers.ratings import RatingMatrix
        >>> far = np.array([[0, 1, 4], [1, 0, 3], [4, 3, 0]])
        >>> rated = RatedPairs([RatingMatrix(["ant", "bee", "car"], far)], "spearman")
        >>> round(rated.correlate(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])).value, 6)
        1.0
    """

    def __init__(self, people: Sequence[RatingMatrix], coefficient: Coefficient) -> None:
        if any(list(one.items) != list(people[0].items) for one in people):
            raise LikemindError("the ratings are about different items: give every person's about the same ones")
        self.n, self.coefficient = len(people[0]), coefficient
        self._first, self._second = np.triu_indices(self.n, 1)
        self._people = [one.dissimilarities[self._first, self._second] for one in people]

    @property
    def ceiling(self) -> tuple[float, float] | None:
        """Lower and upper noise ceiling, the range in which the true model's score lies; None of one person.

        Lower: a person against the mean of all others. Upper: against the mean of all, that person's too (Nili et al.
        2014; ratings as ranks for Spearman's coefficient).
        """
        if len(self._people) == 1:
            return None
        like = ranks if self.coefficient == "spearman" else _standard
        each = np.stack([like(one) for one in self._people])
        total = each.sum(axis=0)
        lower = np.mean([one @ _standard(total - one) for one in each])
        return float(lower), float(np.mean(each @ _standard(total)))

    def correlate(self, embedding: np.ndarray) -> Rated:
        """Return the correlation with the embedding's 1 − cosine.

        Shapes:
            embedding: (m, d), rows in the order of the items.
        """
        return self.correlate_matrix(dissimilarities(embedding))

    def correlate_matrix(self, model: np.ndarray) -> Rated:
        """Return the correlation with a model's dissimilarities, (m, m)."""
        mine = model[self._first, self._second]
        measure = _spearman if self.coefficient == "spearman" else _pearson
        values, influences = zip(*(measure(mine, theirs) for theirs in self._people), strict=True)
        influence = np.stack(influences) / (len(values) * len(mine))
        return Rated(float(np.mean(values)), self.n, influence, self._first, self._second)


def _pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the correlation, and how much each of n pairs of values moves it, times n."""
    u, v = _standard(x) * np.sqrt(len(x)), _standard(y) * np.sqrt(len(y))
    rho = float((u * v).mean())
    return rho, u * v - rho * (u**2 + v**2) / 2


def _spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the rank correlation, and how much each of n pairs of values moves it, times n.

    A pair counts by its own ranks, and by raising the ranks of all larger values.
    """
    n = len(x)
    u, v = (rankdata(one) / n - (n + 1) / (2 * n) for one in (x, y))
    xx, yy, xy = float((u * u).mean()), float((v * v).mean()), float((u * v).mean())
    if min(xx, yy) == 0:
        return 0.0, np.zeros(n)

    def moved(product: np.ndarray, *raised: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        by_pair = product + sum(_raised(values, weight) for values, weight in raised)
        centred: np.ndarray = by_pair - by_pair.mean()
        return centred

    rho, size = xy / np.sqrt(xx * yy), np.sqrt(xx * yy)
    of_squares = moved(u * u, (x, u), (x, u)) / xx + moved(v * v, (y, v), (y, v)) / yy
    return float(rho), moved(u * v, (x, v), (y, u)) / size - rho / 2 * of_squares


def _raised(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return, for each value, the mean over all of the weight of those that are larger; of equal ones, half."""
    _, group = np.unique(values, return_inverse=True)
    by_value = np.bincount(group, weight)
    larger = np.cumsum(by_value[::-1])[::-1] - by_value
    raised: np.ndarray = (larger + by_value / 2)[group] / len(values)
    return raised


def _standard(values: np.ndarray) -> np.ndarray:
    """Return values centred and of unit length, so that a dot product is a correlation; zeros for a constant."""
    centred = values - values.mean()
    length = float(np.linalg.norm(centred))
    found: np.ndarray = centred / length if length > 1e-12 else np.zeros_like(centred)
    return found

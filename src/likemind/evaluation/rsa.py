"""Representational similarity analysis: are the pairs that people find unlike also far apart in the embedding?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from likemind.errors import LikemindError
from likemind.evaluation.intervals import Crossed, Resampled
from likemind.evaluation.odd_one_out import ranks
from likemind.student.model import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.evaluation.intervals import Estimate
    from likemind.readers.ratings import RatingMatrix

Coefficient = Literal["spearman", "pearson"]
COEFFICIENTS: tuple[Coefficient, ...] = ("spearman", "pearson")
SAMPLES = 1000
CROSSED_SAMPLES = 400


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


class RatedPairs:
    """People's dissimilarities of m items, ready to be correlated with many models'.

    Of one matrix, the value is its correlation with the model's over all pairs of different items, and items are
    resampled; a sample's pairs of an item with itself are left out (Nili et al. 2014). Of several people's matrices,
    the value is the mean of their correlations, and items and people are resampled. Constant dissimilarities correlate
    with nothing: 0.

    Args:
        people: One matrix, or one a person; all about the same items in the same order; m ≥ 3.
        coefficient: ``spearman`` or ``pearson``.
        seed: Of the resampling.

    Raises:
        LikemindError: The people rated different items.

    Example:
        >>> from likemind.readers.ratings import RatingMatrix
        >>> far = np.array([[0, 1, 4], [1, 0, 3], [4, 3, 0]])
        >>> rated = RatedPairs([RatingMatrix(["ant", "bee", "car"], far)], "spearman", seed=0)
        >>> rated.correlate(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])).value
        1.0
    """

    def __init__(self, people: Sequence[RatingMatrix], coefficient: Coefficient, seed: int) -> None:
        if any(list(one.items) != list(people[0].items) for one in people):
            raise LikemindError("the ratings are about different items: give every person's about the same ones")
        self.n = len(people[0])
        self._centre = ranks if coefficient == "spearman" else _standard
        matrices = [one.dissimilarities for one in people]
        every = np.arange(self.n)
        self._whole = np.stack([self._vector(matrix, every) for matrix in matrices])
        rng = np.random.default_rng([seed, self.n])
        self._rows: list[np.ndarray] = []
        self._stimuli: list[np.ndarray | None] = []
        self._people: list[np.ndarray] = []
        self._both: list[np.ndarray | None] = []
        for _ in range(SAMPLES if len(people) == 1 else CROSSED_SAMPLES):
            rows = rng.integers(self.n, size=self.n)
            usable = len(np.unique(rows)) > 2
            self._rows.append(rows)
            vectors = np.stack([self._vector(matrix, rows) for matrix in matrices]) if usable else None
            self._stimuli.append(None if vectors is None else vectors.mean(axis=0))
            if len(people) > 1:
                drawn = rng.integers(len(people), size=len(people))
                self._people.append(self._whole[drawn].mean(axis=0))
                self._both.append(None if vectors is None else vectors[drawn].mean(axis=0))

    def _vector(self, matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
        a, b = np.triu_indices(len(rows), 1)
        first, second = rows[a], rows[b]
        apart = first != second
        return self._centre(matrix[first[apart], second[apart]])

    @property
    def ceiling(self) -> tuple[float, float] | None:
        """Lower and upper noise ceiling, the range in which the true model's score lies; None of one person.

        Lower: a person against the mean of all others. Upper: against the mean of all, that person's too (Nili et al.
        2014; ratings as ranks for Spearman's coefficient).
        """
        count = len(self._whole)
        if count == 1:
            return None
        total = self._whole.sum(axis=0)
        lower = np.mean([one @ _length_one(total - one) for one in self._whole])
        return float(lower), float(np.mean(self._whole @ _length_one(total)))

    def correlate(self, embedding: np.ndarray) -> Estimate:
        """Return the correlation with the embedding's 1 − cosine.

        Shapes:
            embedding: (m, d), rows in the order of the items.
        """
        return self.correlate_matrix(dissimilarities(embedding))

    def correlate_matrix(self, model: np.ndarray) -> Estimate:
        """Return the correlation with a model's dissimilarities, (m, m)."""
        whole = self._vector(model, np.arange(self.n))
        value = float(whole @ self._whole.mean(axis=0))
        drawn = [
            None if theirs is None else self._vector(model, rows)
            for rows, theirs in zip(self._rows, self._stimuli, strict=True)
        ]
        stimuli = _products(drawn, self._stimuli)
        if not self._people:
            return Resampled(value, self.n, stimuli)
        people = np.array([whole @ theirs for theirs in self._people])
        return Crossed(value, self.n, stimuli, people, _products(drawn, self._both), min(self.n, len(self._whole)))


def _products(ours: list[np.ndarray | None], theirs: list[np.ndarray | None]) -> np.ndarray:
    return np.array(
        [np.nan if one is None or other is None else one @ other for one, other in zip(ours, theirs, strict=True)]
    )


def _standard(values: np.ndarray) -> np.ndarray:
    """Return values centred and of unit length, so that a dot product is a correlation; zeros for a constant."""
    return _length_one(values - values.mean())


def _length_one(values: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(values))
    found: np.ndarray = values / length if length > 1e-12 else np.zeros_like(values)
    return found

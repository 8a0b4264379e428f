"""Representational similarity analysis: are the pairs that people find unlike also far apart in the embedding?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likemind.evaluation.intervals import Resampled
from likemind.evaluation.odd_one_out import ranks
from likemind.student.model import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.readers.ratings import RatingMatrix

SAMPLES = 1000


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


def spearman(model: np.ndarray, people: np.ndarray, seed: int) -> Resampled:
    """Return Spearman's ρ between two dissimilarity matrices, over all pairs of different items.

    Items are what is resampled; a sample's pairs of an item with itself are left out (Nili et al. 2014). Constant
    dissimilarities correlate with nothing: 0.

    Shapes:
        model, people: (m, m), symmetric; m ≥ 3.
    """
    m = len(people)
    rng = np.random.default_rng([seed, m])
    replicates = np.full(SAMPLES, np.nan)
    for number in range(SAMPLES):
        rows = rng.integers(m, size=m)
        if len(np.unique(rows)) > 2:
            replicates[number] = _correlation(model, people, rows)
    return Resampled(_correlation(model, people, np.arange(m)), m, replicates)


def _correlation(model: np.ndarray, people: np.ndarray, rows: np.ndarray) -> float:
    a, b = np.triu_indices(len(rows), 1)
    first, second = rows[a], rows[b]
    apart = first != second
    ours, theirs = (ranks(matrix[first[apart], second[apart]]) for matrix in (model, people))
    return float(ours @ theirs)


def rsa(embedding: np.ndarray, ratings: RatingMatrix, seed: int) -> Resampled:
    """Return Spearman's ρ between people's dissimilarities and the embedding's 1 − cosine.

    Shapes:
        embedding: (m, d), rows in the order of ``ratings.items``.
    """
    return spearman(dissimilarities(embedding), ratings.dissimilarities, seed)

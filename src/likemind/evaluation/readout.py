"""A linear read-out of frozen features: ridge regression on classes, for any number of photographs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from likemind.episodes import ALPHAS
from likemind.errors import LikemindError

_ROWS = 4096
_JUDGED = 10_000


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A fitted read-out.

    Attributes:
        weights: (d, classes).
        bias: (classes,).
        alpha: The penalty that was chosen.
    """

    weights: np.ndarray
    bias: np.ndarray
    alpha: float

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the class number of each row, (n,)."""
        parts = [self._part(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _part(self, rows: np.ndarray) -> np.ndarray:
        best: np.ndarray = (rows.astype(np.float64) @ self.weights + self.bias).argmax(axis=1)
        return best


def fit_readout(rows: np.ndarray, label: np.ndarray, *, alphas: np.ndarray = ALPHAS, seed: int = 0) -> ReadOut:
    """Fit a ridge classifier to features, its penalty chosen by leaving one row out.

    Targets are +1 for the row's class and −1 for the others; the penalty is that with the least squared error on rows
    left out one at a time, in closed form (Golub, Heath and Wahba 1979, equation 2.2; scikit-learn's
    ``RidgeClassifierCV`` does the same). Of more than 10,000 rows, as many are drawn to choose the penalty; all serve
    in the fit. Work is d³ + n·d², memory d² + d · classes: nothing grows with n.

    Shapes:
        rows: (n, d), unit rows. label: (n,) class numbers from 0, each at least once. alphas: candidates, above 0.

    Raises:
        LikemindError: There are fewer than two classes.

    Example:
        >>> fit_readout(np.eye(4), np.array([0, 0, 1, 1])).predict(np.eye(4)[:1])
        array([0])
    """
    classes = int(label.max()) + 1 if len(label) else 0
    if classes < 2:
        raise LikemindError("a read-out needs photographs of two classes at least: add some")
    mean = rows.mean(axis=0, dtype=np.float64)
    shares = np.bincount(label, minlength=classes) / len(label)
    gram, cross = _products(rows, label, mean, shares)
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    along = vectors.T @ cross
    judged = np.arange(len(rows))
    if len(rows) > _JUDGED:
        judged = np.sort(np.random.default_rng(seed).choice(len(rows), _JUDGED, replace=False))
    errors = _left_out(rows[judged], label[judged], mean, shares, len(rows), vectors, values, along, alphas)
    alpha = float(alphas[int(errors.argmin())])
    weights = vectors @ (along / (values + alpha)[:, None])
    return ReadOut(weights, (2 * shares - 1) - mean @ weights, alpha)


def _targets(label: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the centred targets, (n, classes)."""
    centred: np.ndarray = 2 * ((label[:, None] == np.arange(len(shares))) - shares)
    return centred


def _products(
    rows: np.ndarray, label: np.ndarray, mean: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    gram, cross = np.zeros((len(mean), len(mean))), np.zeros((len(mean), len(shares)))
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS] - mean
        gram += part.T @ part
        cross += part.T @ _targets(label[start : start + _ROWS], shares)
    return gram, cross


def _left_out(
    rows: np.ndarray,
    label: np.ndarray,
    mean: np.ndarray,
    shares: np.ndarray,
    n: int,
    vectors: np.ndarray,
    values: np.ndarray,
    along: np.ndarray,
    alphas: np.ndarray,
) -> np.ndarray:
    """Return the squared error of each penalty on rows that were left out, summed."""
    total = np.zeros(len(alphas))
    for start in range(0, len(rows), _ROWS):
        turned = (rows[start : start + _ROWS] - mean) @ vectors
        wanted = _targets(label[start : start + _ROWS], shares)
        for place, alpha in enumerate(alphas):
            leverage = 1 / n + (turned**2 / (values + alpha)).sum(axis=1)
            residual = wanted - turned @ (along / (values + alpha)[:, None])
            total[place] += float(((residual / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2).sum())
    return total

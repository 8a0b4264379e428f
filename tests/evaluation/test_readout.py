"""The read-out against scikit-learn's, and against leaving rows out one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

from likemind.episodes import ALPHAS
from likemind.errors import LikemindError
from likemind.evaluation import readout
from likemind.evaluation.readout import fit_readout


def problem(seed: int, n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    label = draw.permutation(np.arange(n) % classes)
    rows = draw.normal(size=(n, d)) + 0.8 * draw.normal(size=(classes, d))[label]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), label


@given(st.integers(0, 1000), st.integers(8, 60), st.integers(2, 40), st.integers(2, 6))
def test_it_is_scikit_learns(seed: int, n: int, d: int, classes: int) -> None:
    rows, label = problem(seed, n, d, classes)
    theirs = RidgeClassifierCV(alphas=ALPHAS).fit(rows, label)
    ours = fit_readout(rows, label)
    assert ours.alpha == pytest.approx(theirs.alpha_)
    fresh, _ = problem(seed + 1, 200, d, classes)
    scores = fresh @ ours.weights + ours.bias
    expected = theirs.decision_function(fresh)
    if classes == 2:
        expected = np.stack([-expected, expected], axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-8)


def test_the_penalty_is_that_of_leaving_each_row_out() -> None:
    rows, label = problem(3, 24, 6, 3)
    errors = []
    for alpha in ALPHAS:
        total = 0.0
        for out in range(len(rows)):
            kept = np.arange(len(rows)) != out
            fitted = RidgeClassifier(alpha=alpha).fit(rows[kept], label[kept])
            wanted = 2.0 * (np.arange(3) == label[out]) - 1
            total += float(((fitted.decision_function(rows[out : out + 1])[0] - wanted) ** 2).sum())
        errors.append(total)
    assert fit_readout(rows, label).alpha == pytest.approx(ALPHAS[int(np.argmin(errors))])


def test_in_parts_and_with_few_rows_to_judge_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, label = problem(4, 90, 12, 4)
    whole = fit_readout(rows, label)
    monkeypatch.setattr(readout, "_ROWS", 7)
    in_parts = fit_readout(rows.astype(np.float32), label)
    np.testing.assert_allclose(in_parts.weights, whole.weights, atol=1e-5)
    np.testing.assert_array_equal(in_parts.predict(rows), whole.predict(rows))
    monkeypatch.setattr(readout, "_JUDGED", 30)
    few = fit_readout(rows, label, seed=1)
    assert few.alpha in ALPHAS
    np.testing.assert_array_equal(few.weights, fit_readout(rows, label, alphas=np.array([few.alpha])).weights)
    assert few.predict(rows[:0]).shape == (0,)


def test_constant_features_give_the_larger_class() -> None:
    label = np.array([0, 1, 1, 1])
    assert (fit_readout(np.ones((4, 3)), label).predict(np.ones((2, 3))) == 1).all()


def test_one_class_is_no_task() -> None:
    for label in (np.zeros(3, dtype=int), np.zeros(0, dtype=int)):
        with pytest.raises(LikemindError, match="two classes at least"):
            fit_readout(np.ones((len(label), 2)), label)

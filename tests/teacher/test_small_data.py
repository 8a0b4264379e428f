"""Few answers of two people: the teacher is not worse than the features as they are, and soon better."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from likemind.choice import PAIRS, agreement
from likemind.teacher.teach import teach
from likemind.triplets import Triplets

from .conftest import make_store

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.teacher.teacher import Teacher

ITEMS, WIDTH, MEANINGFUL, DRAWS = 60, 32, 4, 50
ALL = np.array(list(itertools.combinations(range(ITEMS), 3)))


def softmax(Z: np.ndarray) -> np.ndarray:
    s = np.stack([(Z[ALL[:, a]] * Z[ALL[:, b]]).sum(1) for a, b in PAIRS], axis=1)
    shares = np.exp(s - s.max(axis=1, keepdims=True))
    p: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return p


def answered(seed: int, n: int) -> tuple[np.ndarray, Triplets, np.ndarray]:
    """Features, answers of two people who see the first few dimensions, each in their own way, with lapses; and how
    often they would choose each pair of every triplet there is."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ITEMS, WIDTH))
    sights = 2.0**0.5 * np.exp(0.3 * rng.normal(size=(2, MEANINGFUL)))
    people = np.stack([0.95 * softmax(X[:, :MEANINGFUL] * sight) + 0.05 / 3 for sight in sights])
    rows, who = rng.integers(len(ALL), size=n), rng.integers(2, size=n)
    pair = (rng.random((n, 1)) > people[who, rows].cumsum(axis=1)).sum(axis=1).clip(max=2)
    ids = [f"item-{k:03d}" for k in range(ITEMS)]
    names = np.array(["ann", "bob"], dtype=object)[who]
    return X, Triplets(ids, ALL[rows], choice=2 - pair, participant=names, source="simulated"), people.mean(axis=0)


def scores(teacher: Teacher, X: np.ndarray, p: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Agreement, and cross-entropy."""
    s = teacher.similarities(X.astype(np.float32), ALL) / temperature
    right = float(agreement(s, torch.from_numpy(p)).mean())
    return np.array([right, float(-(torch.from_numpy(p) * s.log_softmax(1)).sum(1).mean())])


def gains(place: Path, n: int, draws: int) -> np.ndarray:
    """What the teacher has beyond the untransformed features at their own best temperature: (draws, 2)."""
    found = []
    for seed in range(draws):
        X, answers, p = answered(seed, n)
        teacher = teach(make_store(place / f"features-{seed}", X), answers, out=place / f"teacher-{seed}")
        before = scores(teacher.untransformed(), X, p, teacher.cv_results_[0]["temperature"])
        found.append(scores(teacher, X, p) - before)
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "clearly"), [(300, 0.0), (2000, 0.15)])
def test_few_answers_do_no_harm_and_more_help(tmp_path: Path, n: int, clearly: float) -> None:
    found = gains(tmp_path, n, DRAWS)
    mean, half = found.mean(axis=0), 1.96 * found.std(axis=0, ddof=1) / DRAWS**0.5
    print(f"{n} answers: agreement {mean[0]:+.4f} ± {half[0]:.4f}, cross-entropy {mean[1]:+.4f} ± {half[1]:.4f}")
    assert mean[0] - half[0] > clearly
    assert mean[1] + half[1] < 0
    assert found[:, 0].min() > -0.05


def test_a_hundred_answers_do_no_harm(tmp_path: Path) -> None:
    found = gains(tmp_path, 100, 4)
    assert found[:, 0].mean() > -0.02
    assert found[:, 1].mean() < 0.02

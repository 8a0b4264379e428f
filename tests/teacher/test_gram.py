from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from likemind.choice import PAIRS
from likemind.teacher.gram import GramObjective


def problem(seed: int, m: int = 7, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(seed)
    triplets = np.stack([rng.choice(m, 3, replace=False) for _ in range(n)])
    targets = rng.dirichlet([1, 1, 1], size=n)
    gram = torch.from_numpy(rng.normal(size=(m, m)) * 3)
    return triplets, targets, rng.integers(1, 9, size=n).astype(float), gram


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_that_of_a_slow_loop(seed: int) -> None:
    triplets, targets, weights, gram = problem(seed)
    total = 0.0
    for row, target, weight in zip(triplets, targets, weights, strict=True):
        s = [float(gram[row[a], row[b]]) for a, b in PAIRS]
        norm = math.log(sum(math.exp(value) for value in s))
        total -= weight * sum(t * (value - norm) for t, value in zip(target, s, strict=True))
    loss, _ = GramObjective(triplets, targets, weights, len(gram))(gram)
    assert loss == pytest.approx(total / weights.sum(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_autograds(seed: int) -> None:
    triplets, targets, weights, gram = problem(seed)
    leaf = gram.clone().requires_grad_()
    s = torch.stack([leaf[triplets[:, a], triplets[:, b]] for a, b in PAIRS], dim=1)
    share = torch.from_numpy(weights / weights.sum())[:, None]
    (-(share * torch.from_numpy(targets) * s.log_softmax(1)).sum()).backward()
    _, gradient = GramObjective(triplets, targets, weights, len(gram))(gram)
    assert leaf.grad is not None
    assert float((gradient - leaf.grad).abs().max()) < 1e-12


def test_gradient_is_the_slope_of_the_loss() -> None:
    triplets, targets, weights, gram = problem(5)
    objective = GramObjective(triplets, targets, weights, len(gram))
    _, gradient = objective(gram)
    for i in range(len(gram)):
        for j in range(len(gram)):
            step = torch.zeros_like(gram)
            step[i, j] = 1e-5
            slope = (objective(gram + step)[0] - objective(gram - step)[0]) / 2e-5
            assert slope == pytest.approx(float(gradient[i, j]), abs=1e-9)


def test_entries_far_apart_stay_finite() -> None:
    gram = torch.zeros(3, 3, dtype=torch.float64)
    gram[0, 1], gram[0, 2] = 1e5, -1e5
    loss, gradient = GramObjective(np.array([[0, 1, 2]]), np.array([[0.0, 1.0, 0.0]]), np.ones(1), 3)(gram)
    assert loss == pytest.approx(2e5)
    assert torch.isfinite(gradient).all()

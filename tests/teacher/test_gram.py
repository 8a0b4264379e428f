from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likemind.choice import PAIRS
from likemind.teacher import gram as module
from likemind.teacher.gram import GramObjective, dot_pairs, sum_up_on_device

BOTH = pytest.mark.parametrize("dense", [True, False], ids=["matrix", "pairs"])


def problem(seed: int, m: int = 7, n: int = 40, d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(seed)
    triplets = np.stack([rng.choice(m, 3, replace=False) for _ in range(n)])
    targets = rng.dirichlet([1, 1, 1], size=n)
    return triplets, targets, rng.integers(1, 9, size=n).astype(float), torch.from_numpy(rng.normal(size=(m, d)) * 1.5)


def slow(triplets: np.ndarray, targets: np.ndarray, weights: np.ndarray, Z: torch.Tensor) -> float:
    total = 0.0
    for row, target, weight in zip(triplets, targets, weights, strict=True):
        s = [sum(float(x) * float(y) for x, y in zip(Z[row[a]], Z[row[b]], strict=True)) for a, b in PAIRS]
        top = max(s)
        norm = top + math.log(sum(math.exp(value - top) for value in s))
        total -= weight * sum(t * (value - norm) for t, value in zip(target, s, strict=True))
    return total / float(weights.sum())


def by_autograd(
    triplets: np.ndarray, targets: np.ndarray, weights: np.ndarray, Z: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Loss and gradient in float64, from log_softmax."""
    leaf = Z.double().clone().requires_grad_()
    s = torch.stack([(leaf[triplets[:, a]] * leaf[triplets[:, b]]).sum(1) for a, b in PAIRS], dim=1)
    loss = -(torch.from_numpy(weights / weights.sum())[:, None] * torch.from_numpy(targets) * s.log_softmax(1)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return loss.item(), leaf.grad


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_loss_is_that_of_a_slow_loop(seed: int, dense: bool) -> None:
    triplets, targets, weights, Z = problem(seed)
    loss, _ = GramObjective(triplets, targets, weights, len(Z), dense=dense)(Z)
    assert loss == pytest.approx(slow(triplets, targets, weights, Z), abs=1e-12)


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_autograds(seed: int, dense: bool) -> None:
    triplets, targets, weights, Z = problem(seed)
    wanted = by_autograd(triplets, targets, weights, Z)
    loss, gradient = GramObjective(triplets, targets, weights, len(Z), dense=dense)(Z)
    assert loss == pytest.approx(wanted[0], abs=1e-12)
    assert float((gradient - wanted[1]).abs().max()) < 1e-12


@BOTH
def test_gradient_is_the_slope_of_the_loss(dense: bool) -> None:
    triplets, targets, weights, Z = problem(5)
    objective = GramObjective(triplets, targets, weights, len(Z), dense=dense)
    _, gradient = objective(Z)
    for i in range(len(Z)):
        for j in range(Z.shape[1]):
            step = torch.zeros_like(Z)
            step[i, j] = 1e-5
            slope = (objective(Z + step)[0] - objective(Z - step)[0]) / 2e-5
            assert slope == pytest.approx(float(gradient[i, j]), abs=1e-9)


def test_matrix_and_pairs_are_the_same_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    triplets, targets, weights, Z = problem(6, m=30, n=300)
    one = GramObjective(triplets, targets, weights, len(Z), dense=True)(Z)
    monkeypatch.setattr(module, "_BLOCK", 30)  # seven pairs at a time
    other = GramObjective(triplets, targets, weights, len(Z), dense=False)(Z)
    assert one[0] == pytest.approx(other[0], abs=1e-12)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "DENSE", 29)
    by_size = GramObjective(triplets, targets, weights, len(Z))
    assert by_size._ends is not None
    assert by_size(Z)[0] == other[0]


@BOTH
def test_float32_is_float64_rounded(dense: bool) -> None:
    triplets, targets, weights, Z = problem(8, m=40, n=2000, d=6)
    wanted = by_autograd(triplets, targets, weights, Z)
    loss, gradient = GramObjective(triplets, targets, weights, len(Z), dtype=torch.float32, dense=dense)(Z.float())
    assert gradient.dtype == torch.float32
    assert loss == pytest.approx(wanted[0], abs=1e-5)
    assert float((gradient.double() - wanted[1]).abs().max()) < 1e-6


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_similarities_far_apart(dtype: torch.dtype, size: float, dense: bool) -> None:
    """Logits of ±1e4 beside triplets whose own are all small, or all far below the largest of the matrix."""
    rng = np.random.default_rng(2)
    near = rng.normal(size=(4, 3))
    far = np.sqrt(size) * np.array([[1, 0, 0], [1, 0, 0.1], [-1, 0, 0], [0.7, -0.7, 0]])
    Z = torch.from_numpy(np.concatenate([near, far])).to(dtype)
    triplets = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 6], [4, 6, 7], [0, 5, 6], [6, 4, 2], [2, 3, 0]])
    targets, weights = rng.dirichlet([1, 1, 1], size=7), np.arange(1.0, 8.0)
    wanted = by_autograd(triplets, targets, weights, Z)
    loss, gradient = GramObjective(triplets, targets, weights, len(Z), dtype=dtype, dense=dense)(Z)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    assert loss == pytest.approx(wanted[0], rel=close)
    assert torch.isfinite(gradient).all()
    assert float((gradient.double() - wanted[1]).abs().max()) < close * float(wanted[1].abs().max())


@BOTH
def test_a_choice_against_all_odds(dense: bool) -> None:
    Z = torch.tensor([[1e3, 0.0], [1e2, 0.0], [-1e2, 0.0]], dtype=torch.float64)
    loss, gradient = GramObjective(np.array([[0, 1, 2]]), np.array([[0.0, 1.0, 0.0]]), np.ones(1), 3, dense=dense)(Z)
    assert loss == pytest.approx(2e5)
    assert torch.isfinite(gradient).all()


@given(seed=st.integers(0, 10_000), dense=st.booleans())
def test_order_changes_nothing_but_order(seed: int, dense: bool) -> None:
    """Of triplets, of positions in them, and of items."""
    triplets, targets, weights, Z = problem(seed)
    loss, gradient = GramObjective(triplets, targets, weights, len(Z), dense=dense)(Z)
    rng = np.random.default_rng(seed)
    rows, items = rng.permutation(len(triplets)), rng.permutation(len(Z))
    swapped, by_pair = triplets[:, [2, 0, 1]], targets[:, [1, 2, 0]]  # pairs 01, 02, 12 are now 02, 12, 01
    moved = np.argsort(items)[swapped[rows]]
    found = GramObjective(moved, by_pair[rows], weights[rows], len(Z), dense=dense)(Z[items])
    assert found[0] == pytest.approx(loss, abs=1e-12)
    torch.testing.assert_close(found[1], gradient[items], rtol=0, atol=1e-12)


@BOTH
def test_a_weight_is_so_many_rows(dense: bool) -> None:
    triplets, targets, weights, Z = problem(3)
    rows = np.repeat(np.arange(len(triplets)), weights.astype(int))
    one = GramObjective(triplets, targets, weights, len(Z), dense=dense)(Z)
    many = GramObjective(triplets[rows], targets[rows], None, len(Z), dense=dense)(Z)
    assert one[0] == pytest.approx(many[0], abs=1e-12)
    torch.testing.assert_close(one[1], many[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_on_a_device_is_the_kernels(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(4)
    cells = torch.from_numpy(rng.integers(50, size=(400, 3)).astype(np.int32))
    shifted = torch.from_numpy(np.exp(-rng.uniform(0, 120, size=50))).to(dtype)
    shifted[:10] = 0.0
    share = torch.from_numpy(rng.dirichlet(np.ones(400))).to(dtype)
    least = module._LEAST[dtype]
    one, other = torch.zeros(50, dtype=dtype), torch.zeros(50, dtype=dtype)
    by_kernel = module._sum_up(cells.numpy(), shifted.numpy(), share.numpy(), least, one.numpy())
    on_device = sum_up_on_device(cells, shifted, share, least, other)
    assert by_kernel[1] == on_device[1] > 0
    assert by_kernel[0] == pytest.approx(on_device[0], rel=1e-6)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n", [1, 500], ids=["pairs", "matrix"])
def test_dot_pairs(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    triplets, _, _, Z = problem(9, m=9, n=n)
    wanted = [[float(Z[row[a]] @ Z[row[b]]) for a, b in PAIRS] for row in triplets]
    torch.testing.assert_close(dot_pairs(Z, triplets), torch.tensor(wanted, dtype=torch.float64))
    monkeypatch.setattr(module, "DENSE", 3)
    monkeypatch.setattr(module, "_BLOCK", 9)
    torch.testing.assert_close(dot_pairs(Z, triplets), torch.tensor(wanted, dtype=torch.float64))

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from likemind.teacher.local import LocalTerm


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.normal(size=size)) for size in ((9, 5), (5, 4), (4,)))  # type: ignore[return-value]


def slow(y: torch.Tensor, z: torch.Tensor, temperature: float) -> float:
    """gLocal's eq. 4, image by image and neighbour by neighbour."""

    def dot(rows: torch.Tensor, i: int, j: int) -> float:
        return sum(float(a) * float(b) for a, b in zip(rows[i], rows[j], strict=True))

    def cosine(rows: torch.Tensor, i: int, j: int) -> float:
        return dot(rows, i, j) / math.sqrt(dot(rows, i, i) * dot(rows, j, j))

    total = 0.0
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        before = [math.exp(cosine(y, i, j) / temperature) for j in others]
        after = [math.exp(cosine(z, i, j) / temperature) for j in others]
        total -= sum(p / sum(before) * math.log(q / sum(after)) for p, q in zip(before, after, strict=True))
    return total / len(y)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_value_is_that_of_a_double_loop(seed: int, temperature: float) -> None:
    y, W, b = problem(seed)
    found, _, _ = LocalTerm(y, temperature)(W, b)
    assert found == pytest.approx(slow(y, y @ W + b, temperature), abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_autograds(seed: int) -> None:
    y, W, b = problem(seed)
    leaf_W, leaf_b = W.clone().requires_grad_(), b.clone().requires_grad_()

    def log_shares(rows: torch.Tensor) -> torch.Tensor:
        unit = rows / rows.norm(dim=1, keepdim=True)
        off = ~torch.eye(len(rows), dtype=torch.bool)
        return (unit @ unit.T / 0.1)[off].view(len(rows), -1).log_softmax(1)

    loss = -(log_shares(y).exp() * log_shares(y @ leaf_W + leaf_b)).sum(1).mean()
    by_W, by_b = torch.autograd.grad(loss, (leaf_W, leaf_b))
    value, found_W, found_b = LocalTerm(y)(W, b)
    assert value == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(found_W, by_W, rtol=0, atol=1e-11)
    torch.testing.assert_close(found_b, by_b, rtol=0, atol=1e-11)


def test_no_map_has_less_than_a_turn() -> None:
    """A turn, and any scale, leave every neighbourhood as it is: the value is its entropy, and the gradient zero."""
    y, _, _ = problem(4)
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(5, 5))))[0]
    term, none = LocalTerm(y), torch.zeros(5, dtype=torch.float64)
    least, by_W, by_b = term(3 * turn, none)
    assert float(by_W.abs().max()) < 1e-12
    assert float(by_b.abs().max()) < 1e-12
    rng = np.random.default_rng(1)
    assert all(term(torch.from_numpy(rng.normal(size=(5, 5))), none)[0] > least for _ in range(5))

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likemind.choice import PAIRS, gather_pairs
from likemind.student.losses import OBJECTIVES, choice_loss, jensen_shannon, row_loss

F64 = torch.float64
logits = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


def logp(values: list[float] | list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=F64).log_softmax(-1)


def slow_jsd(p: list[float], q: list[float]) -> float:
    def kl(a: list[float], b: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return (kl(p, m) + kl(q, m)) / 2


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    raised = [math.exp(value - top) for value in values]
    return [value / sum(raised) for value in raised]


def matrices(images: int = 6, scale: float = 2.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = [torch.randn(images, images, generator=generator, dtype=F64) * scale for _ in range(2)]
    return pair[0], pair[1]


TRIPLETS = torch.tensor(list(permutations(range(6), 3)))


@given(a=logits, b=logits)
def test_jensen_shannon_is_the_written_out_one(a: list[float], b: list[float]) -> None:
    found = float(jensen_shannon(logp(a), logp(b)))
    assert found == pytest.approx(slow_jsd(softmax(a), softmax(b)), abs=1e-12)
    assert -1e-12 <= found <= math.log(2) + 1e-12
    assert found == pytest.approx(float(jensen_shannon(logp(b), logp(a))), abs=1e-12)


@given(a=logits, b=logits)
def test_jensen_shannon_is_zero_only_for_equals(a: list[float], b: list[float]) -> None:
    assert float(jensen_shannon(logp(a), logp(a))) == pytest.approx(0, abs=1e-12)
    gap = max(abs(x - y) for x, y in zip(softmax(a), softmax(b), strict=True))
    if gap > 1e-3:
        assert float(jensen_shannon(logp(a), logp(b))) > 1e-8


def test_jensen_shannon_at_its_bounds() -> None:
    certain = torch.tensor([[0.0, -math.inf, -math.inf]]).clamp(min=-1e30)
    other = torch.tensor([[-math.inf, 0.0, -math.inf]]).clamp(min=-1e30)
    assert float(jensen_shannon(certain, other)) == pytest.approx(math.log(2))
    assert float(jensen_shannon(certain, certain)) == 0.0


def triplet_loss(target: torch.Tensor, similarity: torch.Tensor, triplets: torch.Tensor, **more: Any) -> torch.Tensor:
    return choice_loss(gather_pairs(target, triplets), gather_pairs(similarity, triplets), **more)


def slow_kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


SLOW = {"jensen_shannon": slow_jsd, "kl": slow_kl, "hard": lambda p, q: -math.log(q[p.index(max(p))])}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_triplet_loss_is_a_slow_loop(objective: str) -> None:
    target, similarity = matrices()
    total = 0.0
    for row in TRIPLETS.tolist():
        p = softmax([float(target[row[a], row[b]]) / 0.7 for a, b in PAIRS])
        q = softmax([float(similarity[row[a], row[b]]) / 3.0 for a, b in PAIRS])
        total += SLOW[objective](p, q)
    found = triplet_loss(target, similarity, TRIPLETS, objective=objective, target_temperature=0.7, temperature=3.0)
    assert float(found) == pytest.approx(total / len(TRIPLETS), abs=1e-12)


def test_row_loss_is_a_slow_loop_over_the_others() -> None:
    target, similarity = matrices()
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        p = softmax([float(target[i, j]) for j in others])
        q = softmax([float(similarity[i, j]) for j in others])
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert float(row_loss(target, similarity)) == pytest.approx(total / 6, abs=1e-12)


def test_row_loss_ignores_the_diagonal() -> None:
    target, similarity = matrices()
    similarity.requires_grad_()
    before = row_loss(target, similarity)
    (gradient,) = torch.autograd.grad(before, similarity)
    assert (gradient.diagonal() == 0).all()
    assert (gradient != 0).sum() == 30
    eye = torch.eye(6, dtype=F64)
    assert row_loss(target + 50 * eye, similarity - 9 * eye).item() == before.item()
    assert float(row_loss(target, target - 9 * eye)) == pytest.approx(0, abs=1e-12)


def test_gradients_in_float64() -> None:
    target, similarity = (m.requires_grad_() for m in matrices())
    assert torch.autograd.gradcheck(
        lambda t, s: triplet_loss(t, s, TRIPLETS[:20], temperature=2.0), (target, similarity)
    )
    assert torch.autograd.gradcheck(row_loss, (target, similarity))
    for objective in OBJECTIVES:
        assert torch.autograd.gradcheck(
            lambda s, o=objective: triplet_loss(target.detach(), s, TRIPLETS[:20], objective=o), similarity
        )
    rows = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    fixed = logp([[1.0, 0.0, -2.0]] * 4)
    assert torch.autograd.gradcheck(lambda x: jensen_shannon(fixed, x.log_softmax(-1)), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("loss", ["rows", *OBJECTIVES])
def test_values_and_gradients_are_finite_however_far_apart(dtype: torch.dtype, size: float, loss: str) -> None:
    """Teacher and student sure of the same, of opposites, and one of them sure of nothing."""
    generator = torch.Generator().manual_seed(0)
    sure = (size * torch.randn(6, 6, generator=generator).sign()).to(dtype)
    unsure = torch.zeros(6, 6, dtype=dtype)
    for target in (sure, -sure, unsure):
        for start in (sure, -sure, unsure):
            t, s = target.clone().requires_grad_(), start.clone().requires_grad_()
            value = row_loss(t, s) if loss == "rows" else triplet_loss(t, s, TRIPLETS, objective=loss)
            assert value.dtype == torch.float32
            assert torch.isfinite(value)
            value.backward()
            assert s.grad is not None
            assert (t.grad is None) == (loss == "hard")  # it looks at the first choice alone
            assert t.grad is None or torch.isfinite(t.grad).all()
            assert torch.isfinite(s.grad).all()
            if loss == "jensen_shannon":
                assert -1e-6 <= value.item() <= math.log(2) + 1e-6
            if target is start and loss != "hard":
                assert value.item() == pytest.approx(0, abs=1e-6)


def test_bfloat16_logits_are_widened_before_the_logarithm() -> None:
    target, similarity = (m.bfloat16() for m in matrices())
    for loss in (row_loss, lambda t, s: triplet_loss(t, s, TRIPLETS)):
        assert float(loss(target, similarity)) == pytest.approx(
            float(loss(target.double(), similarity.double())), rel=1e-5
        )


def test_a_step_down_the_gradient_lowers_the_loss_where_the_student_is_wrong() -> None:
    """From a student that is sure of another pair."""
    target = torch.zeros(3, 3)
    target[0, 1] = 4.0
    similarity = torch.zeros(3, 3)
    similarity[0, 2] = 5.0
    similarity.requires_grad_()
    triplet = torch.tensor([[0, 1, 2]])
    for _ in range(200):
        (gradient,) = torch.autograd.grad(triplet_loss(target, similarity, triplet), similarity)
        similarity = (similarity - 30 * gradient).detach().requires_grad_()
    assert triplet_loss(target, similarity, triplet).item() < 0.01

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likemind.choice import (
    ODD_OF_PAIR,
    PAIRS,
    choose,
    entropy,
    fit_temperature,
    gather_pairs,
    log_probabilities,
    pair_similarities,
)

numbers = st.floats(-1e4, 1e4, allow_nan=False, width=32)
rows = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8)
PAIR_OF = {frozenset(pair): number for number, pair in enumerate(PAIRS)}


def test_the_odd_one_out_is_outside_its_pair() -> None:
    for pair, odd in zip(PAIRS, ODD_OF_PAIR, strict=True):
        assert sorted([*pair, odd]) == [0, 1, 2]


def test_pair_similarities_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    indices = torch.tensor([[0, 3, 6], [5, 2, 1], [4, 0, 2]])
    expected = [
        [sum(float(x) * float(y) for x, y in zip(embedding[row[a]], embedding[row[b]], strict=True)) for a, b in PAIRS]
        for row in indices.tolist()
    ]
    torch.testing.assert_close(pair_similarities(embedding, indices), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(
        gather_pairs(embedding @ embedding.T, indices), torch.tensor(expected, dtype=torch.float64)
    )


@given(rows, st.floats(0.05, 20))
def test_log_probabilities_against_a_written_out_softmax(
    values: list[tuple[float, float, float]], temperature: float
) -> None:
    found = log_probabilities(torch.tensor(values, dtype=torch.float64), temperature)
    for row, log_p in zip(values, found.tolist(), strict=True):
        scaled = [value / temperature for value in row]
        top = max(scaled)
        total = top + math.log(sum(math.exp(value - top) for value in scaled))
        assert log_p == pytest.approx([value - total for value in scaled], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@given(signs=st.lists(st.sampled_from([-1e4, 0.0, 1e4]), min_size=3, max_size=3))
def test_log_probabilities_and_gradients_are_finite_at_extremes(kind: torch.dtype, signs: list[float]) -> None:
    values = torch.tensor([signs], dtype=kind, requires_grad=True)
    log_p = log_probabilities(values)
    assert log_p.dtype == (torch.float64 if kind == torch.float64 else torch.float32)
    (log_p.sum() + entropy(log_p).sum()).backward()
    assert log_p.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_half_precision_is_widened_before_the_softmax() -> None:
    values = torch.tensor([[3.0, 1.0, -2.0]])
    torch.testing.assert_close(log_probabilities(values.bfloat16()), log_probabilities(values), rtol=1e-6, atol=1e-6)


@given(rows)
def test_entropy_lies_between_none_and_ln_3(values: list[tuple[float, float, float]]) -> None:
    nats = entropy(log_probabilities(torch.tensor(values)))
    assert (nats >= 0).all()
    assert (nats <= math.log(3) + 1e-6).all()


def test_entropy_of_known_distributions() -> None:
    uniform, certain = torch.zeros(1, 3), torch.tensor([[1e4, 0.0, 0.0]])
    assert float(entropy(log_probabilities(uniform))) == pytest.approx(math.log(3))
    assert float(entropy(log_probabilities(certain))) == 0


@given(st.lists(numbers, min_size=4, max_size=4), st.permutations([0, 1, 2]))
def test_permuting_positions_permutes_probabilities(values: list[float], order: list[int]) -> None:
    similarity = torch.zeros(3, 3, dtype=torch.float64)
    for (a, b), value in zip(PAIRS, values[:3], strict=True):
        similarity[a, b] = similarity[b, a] = value
    plain = log_probabilities(gather_pairs(similarity, torch.tensor([[0, 1, 2]])))[0]
    turned = log_probabilities(gather_pairs(similarity, torch.tensor([order])))[0]
    for number, (a, b) in enumerate(PAIRS):
        assert float(turned[number]) == pytest.approx(float(plain[PAIR_OF[frozenset((order[a], order[b]))]]))


@given(st.permutations([0.1, 0.5, 0.9]), st.floats(-100, 100), st.floats(0.01, 100))
def test_choose_takes_the_largest_whatever_the_scale(values: list[float], shift: float, scale: float) -> None:
    similarities = torch.tensor([values], dtype=torch.float64) * scale + shift
    assert choose(similarities).tolist() == [values.index(0.9)]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e30])
def test_constants_are_ties(value: float) -> None:
    assert choose(torch.full((2, 3), value)).tolist() == [-1, -1]


def test_ties_of_the_two_best_are_ties_and_others_are_not() -> None:
    similarities = torch.tensor(
        [
            [1.0, 1.0, 0.0],
            [1.0, 1.0 + 5e-7, 0.0],
            [1.0, 1.0 + 3e-6, 0.0],
            [0.0, 0.0, 1.0],
            [-1.0, -1.0, -2.0],
            [2e6, 2e6 + 1, 0],
        ],
        dtype=torch.float64,
    )
    assert choose(similarities).tolist() == [-1, -1, 1, 2, -1, -1]


def test_nan_is_no_answer() -> None:
    values = [list(row) for row in set(itertools.permutations([math.nan, 0.0, 1.0]))]
    assert choose(torch.tensor(values)).tolist() == [-1] * len(values)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("ratio", [0.02, 0.3, 1.0, 40.0])
def test_fit_temperature_recovers_a_known_one(scale: float, ratio: float) -> None:
    similarities = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 3))) * scale + 5 * scale
    target = log_probabilities(similarities, ratio * scale).exp()
    assert fit_temperature(similarities, target) == pytest.approx(ratio * scale, rel=1e-3)


def test_fit_temperature_from_answers_beats_its_neighbours() -> None:
    rng = np.random.default_rng(1)
    similarities = torch.from_numpy(rng.normal(size=(500, 3)))
    chosen = [rng.choice(3, p=p) for p in log_probabilities(similarities, 0.7).exp().numpy()]
    target = torch.eye(3, dtype=torch.float64)[chosen]

    def loss(temperature: float) -> float:
        return float(-(target * log_probabilities(similarities, temperature)).sum(1).mean())

    found = fit_temperature(similarities, target)
    assert found == pytest.approx(0.7, rel=0.2)
    assert loss(found) <= min(loss(found * 1.02), loss(found / 1.02))


def test_fit_temperature_of_constants_is_a_number() -> None:
    assert math.isfinite(fit_temperature(torch.ones(4, 3), torch.full((4, 3), 1 / 3)))

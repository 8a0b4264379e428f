from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from likemind.choice import choose, pair_similarities
from likemind.evaluation import odd_one_out
from likemind.evaluation.kernel import choices
from likemind.evaluation.odd_one_out import Trials, chosen, picked, similarities
from likemind.triplets import Triplets

if TYPE_CHECKING:
    import pytest

SEEDS = st.integers(0, 2**32 - 1)


def triplets_of(m: int, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(m, 3, replace=False) for _ in range(n)])


@given(st.integers(3, 30), st.integers(1, 8), SEEDS)
def test_choices_are_those_of_the_choice_model(m: int, d: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(m, d)).astype(np.float32)
    rows[:: max(m // 3, 1)] = rows[0]  # equal rows: ties
    triplets = triplets_of(m, 60, seed)
    wanted = choose(pair_similarities(torch.from_numpy(rows), torch.from_numpy(triplets))).numpy()
    found = choices(rows, triplets)
    assert found.dtype == np.int8
    differ = found != wanted
    products = pair_similarities(torch.from_numpy(rows).double(), torch.from_numpy(triplets)).numpy()
    best = np.sort(products, axis=1)
    assert (best[differ, 2] - best[differ, 1] < 1e-5).all(), "only where rounding decides"


@given(st.integers(3, 20), SEEDS)
def test_the_place_in_the_row_follows_the_items(m: int, seed: int) -> None:
    rows, triplets = np.random.default_rng(seed).normal(size=(m, 5)), triplets_of(m, 30, seed)
    odd = {0: 2, 1: 1, 2: 0}
    first = [row[odd[pair]] for row, pair in zip(triplets.tolist(), choices(rows, triplets).tolist(), strict=True)]
    turned = triplets[:, [2, 0, 1]]
    then = [row[odd[pair]] for row, pair in zip(turned.tolist(), choices(rows, turned).tolist(), strict=True)]
    assert first == then


def test_ties_and_what_is_no_number_are_wrong() -> None:
    triplets = np.array([[0, 1, 2]])
    assert choices(np.ones((3, 4)), triplets).tolist() == [-1]
    assert choices(np.zeros((3, 4)), triplets).tolist() == [-1]
    assert choices(np.array([[1, 0], [np.nan, 1], [1, 1]]), triplets).tolist() == [-1]
    assert choices(np.array([[1.0], [1.0], [0.5]]), triplets).tolist() == [0]


def test_few_items_and_many_triplets_give_the_same_by_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"i{k}" for k in range(12)]
    rows = np.random.default_rng(0).normal(size=(12, 7))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    few, many = (
        Trials.of(Triplets(ids, triplets_of(12, n, 1), choice=np.zeros(n, dtype=int)), ids, "here") for n in (9, 400)
    )
    for trials in (few, many):
        wanted = pair_similarities(torch.from_numpy(rows).double(), torch.from_numpy(trials.triplets).long())
        np.testing.assert_allclose(similarities(rows, trials).numpy(), wanted.numpy(), atol=1e-12)
        np.testing.assert_array_equal(picked(rows, trials), chosen(wanted))
        monkeypatch.setattr(odd_one_out, "MOST", 3)
        np.testing.assert_array_equal(picked(rows, trials), chosen(wanted))
        monkeypatch.undo()

"""The simulated observers: exact counts, exact probabilities, believable people."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from likemind.choice import ODD_OF_PAIR, PAIRS
from likemind.errors import LikemindError
from likemind.triplets import LEVELS
from likemind.worlds.observers import OBSERVERS, Observers, WorldItem, sample_triplets, simulate, tree_similarity

SIZES = {"bug": 9, "bird": 12, "car": 10, "tool": 7, "fruit": 3, "star": 1}
GROUP = {"bug": "animals", "bird": "animals", "car": "things", "tool": "things", "fruit": "food", "star": "sky"}


def world() -> list[WorldItem]:
    return [
        WorldItem(
            f"{c}/{k}",
            f"{c} of kind {k}",
            c,
            GROUP[c],
            "train" if k % 3 else "heldout",
            "",
            k,
            c in ("bug", "bird", "fruit"),
        )
        for c, size in SIZES.items()
        for k in range(size)
    ]


ITEMS = world()
POPULATION = Observers.draw(ITEMS, seed=3)
PAIR_OF_ODD = np.argsort(ODD_OF_PAIR)


def test_tree_similarity_adds_what_is_shared() -> None:
    items = [
        WorldItem("a", "black cat", "cat", "animals", "train", "", 0, True),
        WorldItem("b", "cat with eyes", "cat", "animals", "train", "", 1, True),
        WorldItem("c", "lion", "cat", "animals", "train", "", 2, True),
        WorldItem("d", "black cat", "dog", "animals", "train", "", 0, True),
        WorldItem("e", "rose", "flower", "plants", "train", "", 0, True),
        WorldItem("f", "car", "car", "travel", "train", "", 0, False),
    ]
    similarity = tree_similarity(items)
    base = 2.2 + 1.2 + 0.8
    expected = [base + 2.5 + 1, base + 2.5 / 4 + 0.5, base, 1.2 + 0.8, 0.8, 0.0]
    np.testing.assert_allclose(similarity[0], expected)
    np.testing.assert_array_equal(similarity, similarity.T)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 302])
def test_sampling_gives_exact_counts_and_nothing_twice(n: int) -> None:
    indices, level = sample_triplets(ITEMS, n, np.random.default_rng(n))
    assert indices.shape == (n, 3)
    assert [int((level == name).sum()) for name in LEVELS] == [(n + 2 - k) // 3 for k in range(3)]
    assert len({frozenset(row) for row in indices.tolist()}) == n
    kinds = [len({ITEMS[i].category for i in row}) for row in indices]
    assert kinds == [{"between_class": 3, "class_border": 2, "within_class": 1}[name] for name in level]


def test_positions_are_random() -> None:
    indices, level = sample_triplets(ITEMS, 900, np.random.default_rng(0))
    category = np.array([item.category for item in ITEMS])[indices[level == "class_border"]]
    stranger = [next(k for k in range(3) if (row == row[k]).sum() == 1) for row in category]
    assert np.bincount(stranger, minlength=3).min() > 70


def test_sampling_can_take_every_triplet_there_is() -> None:
    few = [item for item in ITEMS if item.category in ("fruit", "star")] + [ITEMS[0], ITEMS[1]]
    indices, _ = sample_triplets(few, 3, np.random.default_rng(0))
    assert len(indices) == 3
    with pytest.raises(LikemindError, match="1 different within_class triplets, 2 are needed"):
        sample_triplets(few, 6, np.random.default_rng(0))


def test_too_little_is_refused_by_name() -> None:
    with pytest.raises(LikemindError, match="n must be 1 or more"):
        sample_triplets(ITEMS, 0, np.random.default_rng(0))
    with pytest.raises(LikemindError, match=f"between 1 and {OBSERVERS}, got 49"):
        simulate(ITEMS, 3, 49, seed=0)
    with pytest.raises(LikemindError, match="seed must be 0 or more"):
        simulate(ITEMS, 3, 2, seed=-1)


def test_probabilities_match_a_big_simulation() -> None:
    indices, _ = sample_triplets(ITEMS, 12, np.random.default_rng(1))
    exact = POPULATION.probabilities(indices)
    np.testing.assert_allclose(exact.sum(axis=1), 1, atol=1e-12)
    answers, rng = 50_000, np.random.default_rng(2)
    for row, truth in zip(indices, exact, strict=True):
        choice, _ = POPULATION.answer(np.tile(row, (answers, 1)), rng.integers(OBSERVERS, size=answers), rng)
        share = np.bincount(PAIR_OF_ODD[choice], minlength=3) / answers
        assert (np.abs(share - truth) < 5 * np.sqrt(truth * (1 - truth) / answers)).all()


def test_the_pair_that_the_tree_prefers_is_chosen_most() -> None:
    bugs_and_car = np.array([[0, 1, next(i for i, item in enumerate(ITEMS) if item.category == "car")]])
    for order in permutations(range(3)):
        pair = POPULATION.probabilities(bugs_and_car[:, order]).argmax()
        assert {order[k] for k in PAIRS[pair]} == {0, 1}


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(len(ITEMS))), st.permutations(range(3)))
def test_permuting_positions_permutes_probabilities(drawn: list[int], order: list[int]) -> None:
    row = np.array([drawn[:3]])
    plain, moved = POPULATION.probabilities(row)[0], POPULATION.probabilities(row[:, order])[0]
    by_odd_item = {drawn[ODD_OF_PAIR[pair]]: plain[pair] for pair in range(3)}
    for pair in range(3):
        assert moved[pair] == pytest.approx(by_odd_item[row[0, order][ODD_OF_PAIR[pair]]], rel=1e-9)


def test_lapses_leave_no_answer_impossible() -> None:
    assert len(POPULATION) == OBSERVERS >= 48
    assert (POPULATION.lapse > 0).all()
    assert 0.015 < POPULATION.lapse.mean() < 0.05
    indices, _ = sample_triplets(ITEMS, 300, np.random.default_rng(4))
    assert POPULATION.probabilities(indices).min() >= POPULATION.lapse.mean() / 3


def test_observers_differ() -> None:
    indices, _ = sample_triplets(ITEMS, 300, np.random.default_rng(5))
    attentive = np.exp(POPULATION.log_attentive(indices, np.arange(OBSERVERS)[:, None]))
    assert attentive.shape == (OBSERVERS, 300, 3)
    assert attentive.std(axis=0).mean() > 0.03
    one = POPULATION.log_attentive(indices, np.full(300, 7))
    np.testing.assert_allclose(one, np.log(attentive[7]), rtol=1e-9, atol=1e-12)


def test_the_private_view_has_its_spread() -> None:
    private = np.einsum("oid,ojd->oij", POPULATION.taste, POPULATION.taste)[:, *np.triu_indices(len(ITEMS), 1)]
    assert private.std() == pytest.approx(0.4, rel=0.05)


def test_response_times_grow_with_doubt_and_lapses_are_fast() -> None:
    answers = simulate(ITEMS, 600, 6, seed=0)
    assert answers.probabilities is not None
    assert answers.response_time is not None
    doubt = -(answers.probabilities * np.log(answers.probabilities)).sum(axis=1)
    assert spearmanr(doubt, answers.response_time).statistic > 0.2
    assert 0.05 < answers.response_time.min() < answers.response_time.max() < 20
    sleepers = Observers(**{**vars(POPULATION), "lapse": np.ones(OBSERVERS)})
    rows, _ = sample_triplets(ITEMS, 600, np.random.default_rng(0))
    who = np.arange(600) % OBSERVERS
    choice, fast = sleepers.answer(rows, who, np.random.default_rng(0))
    assert np.median(fast) < 0.5 * np.median(answers.response_time)
    assert np.bincount(choice, minlength=3).min() > 150


def test_simulation_is_a_function_of_its_seed() -> None:
    first, again, other = (simulate(ITEMS, 30, 4, seed=seed, split="heldout") for seed in (0, 0, 1))
    for name, value in first.columns().items():
        np.testing.assert_array_equal(value, again.columns()[name])
    np.testing.assert_array_equal(first.indices, again.indices)
    assert (first.indices != other.indices).any()


def test_each_triplet_is_answered_by_different_observers_of_one_population() -> None:
    answers = simulate(ITEMS, 60, 5, seed=0, split="train")
    assert len(answers) == 300
    assert answers.source == "simulated"
    assert answers.participant is not None
    assert (np.diff(answers.indices.reshape(60, 5, 3), axis=1) == 0).all()
    assert all(len(set(row)) == 5 for row in answers.participant.reshape(60, 5))
    assert {item.split for item in ITEMS if item.id in set(answers.used_items)} == {"train"}
    exact = Observers.draw(ITEMS, seed=0).probabilities(answers.indices)
    np.testing.assert_allclose(answers.probabilities, exact, rtol=1e-9)

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from likemind.choice import log_probabilities
from likemind.evaluation.ceilings import accuracy_ceiling, against_others, majority
from likemind.evaluation.intervals import mean_estimate
from likemind.evaluation.odd_one_out import Trials, agreement, by_level, chosen, picked, similarities
from likemind.readers.levels import read_levels
from likemind.triplets import Triplets

from .conftest import answers

if TYPE_CHECKING:
    import torch

IDS = [f"i{k}" for k in range(20)]
HUMAN = np.random.default_rng(0).normal(size=(20, 3)) * 1.5


def slow_leave_one_out(given: Triplets, only: set[frozenset[str]]) -> float:
    """Answer by answer: does a person answer as most of the others did?"""
    credit, counted = 0.0, 0
    rows = [
        (frozenset(given.items[k] for k in row), given.items[row[choice]], str(person))
        for row, choice, person in zip(given.indices, given.choice, given.participant, strict=True)  # type: ignore[arg-type]
    ]
    for three, odd, person in rows:
        others = Counter(other for three_, other, person_ in rows if three_ == three and person_ != person)
        if three in only and others:
            most = [name for name, count in others.items() if count == max(others.values())]
            credit += (odd in most) / len(most)
            counted += 1
    return credit / counted


def test_a_person_left_out_at_a_time_is_a_slow_loop() -> None:
    given = answers(IDS, HUMAN, 60, 4, people=5, repeats=5)  # people answer some triplets twice
    trials = Trials.of(given, IDS, "here")
    for level in ["all", *trials.levels]:
        inside = trials.inside(level)
        only = {frozenset(IDS[k] for k in row) for row in trials.triplets[inside]}
        assert accuracy_ceiling(trials, inside) == pytest.approx(slow_leave_one_out(given, only))


def test_repeats_of_nobody_in_particular_leave_an_answer_out_at_a_time() -> None:
    rows = np.array([[0, 1, 2]] * 4 + [[3, 4, 5]] * 2 + [[6, 7, 8]])
    given = Triplets(IDS, rows, choice=np.array([0, 0, 0, 1, 2, 2, 1]))
    trials = Trials.of(given, IDS, "here")
    assert accuracy_ceiling(trials, trials.inside("all")) == pytest.approx((3 + 0 + 2) / 6)
    alone = Trials.of(given.rows(np.array([0, 4, 6])), IDS, "here")
    assert accuracy_ceiling(alone, alone.inside("all")) is None
    shares = Triplets(IDS, rows[:1], probabilities=np.array([[0.5, 0.3, 0.2]]))
    known = Trials.of(shares, IDS, "here")
    assert accuracy_ceiling(known, known.inside("all")) is None
    lonely = Triplets(IDS, rows[[0, 4]], choice=np.array([0, 1]), participant=np.array(["x", "y"], dtype=object))
    apart = Trials.of(lonely, IDS, "here")
    assert against_others(apart)[1].sum() == 0
    assert accuracy_ceiling(apart, apart.inside("all")) is None


def test_most_people() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    trials = Trials.of(Triplets(IDS, np.array([[0, 1, 2], [3, 4, 5]]), probabilities=shares), IDS, "here")
    most, clear = majority(trials)
    assert most[0].tolist() == [1, 0, 0]
    assert clear.tolist() == [True, False]


@pytest.fixture(scope="module")
def study() -> Trials:
    return Trials.of(answers(IDS, HUMAN, 700, 9, people=40, repeats=6), IDS, "here")


def test_the_embedding_that_answered_scores_near_the_ceiling(study: Trials) -> None:
    """By its own dot products; the ceiling from others' answers is a little below, since they are few."""
    found = by_level(picked(HUMAN, study), study, 0, study.answers)
    best = float(log_probabilities(_dots(study)).exp().amax(dim=1).mean())
    low, high = found["all"].interval
    assert low < best < high
    ceiling = accuracy_ceiling(study, study.inside("all"))
    assert ceiling is not None
    assert ceiling - 0.02 < found["all"].value < study.ceiling.mean()
    assert best - 0.05 < ceiling < best + 0.01


def _dots(trials: Trials) -> torch.Tensor:
    return similarities(HUMAN, trials)


def test_a_random_model_is_at_chance_and_a_constant_one_at_zero(study: Trials) -> None:
    inside = 0
    for seed in range(20):
        rows = np.random.default_rng([seed, 3]).normal(size=(20, 50))
        low, high = by_level(picked(rows, study), study, 0)["all"].interval
        inside += low < 1 / 3 < high
    assert inside >= 17
    constant = picked(np.ones((20, 4)), study)
    for weights in (None, study.answers):
        for found in by_level(constant, study, 0, weights).values():
            assert (found.value, *found.interval) == (0.0, 0.0, 0.0)


def test_triplets_and_answers_are_weighed_as_they_say(study: Trials) -> None:
    rows = np.random.default_rng(1).normal(size=(20, 4))
    by_pair = chosen(similarities(rows, study))
    by_triplet = by_level(by_pair, study, 0)
    by_answer = by_level(by_pair, study, 0, study.answers)
    values = agreement(similarities(rows, study), study.people)
    assert by_triplet["all"].value == pytest.approx(values.mean())
    right = [by_pair[t, p] for t, p in zip(study.clusters.triplet, study.clusters.pair, strict=True)]
    assert by_answer["all"].value == pytest.approx(np.mean(right))
    independent = by_level(by_pair, study, 0, intervals="independent")
    assert independent["all"].value == pytest.approx(values.mean())
    assert independent["all"].interval == mean_estimate(values, 0).interval


def test_the_layout_of_levels_gives_ceilings_by_level(shared_data) -> None:  # type: ignore[no-untyped-def]
    given, _ = read_levels(shared_data / "levels_example" / "levels_simulated.parquet", None, "simulated")
    trials = Trials.of(given, given.items, "here")
    ceilings = {level: accuracy_ceiling(trials, trials.inside(level)) for level in trials.levels}
    assert set(ceilings) == {"between_class", "class_border", "within_class"}
    assert ceilings["class_border"] > ceilings["between_class"] > ceilings["within_class"] > 1 / 3  # type: ignore[operator]

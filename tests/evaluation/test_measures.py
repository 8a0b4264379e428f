from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeClassifierCV

from likemind.choice import PAIRS
from likemind.episodes import ALPHAS, QUERIES, chance, decisions, draw_episodes
from likemind.errors import LikemindError
from likemind.evaluation.fewshot import (
    fewshot,
    fewshot_calibrated,
    halves,
    linear_probe,
    nearest_neighbours,
)
from likemind.evaluation.intervals import Crossed, Resampled, mean_estimate
from likemind.evaluation.odd_one_out import (
    TimedTriplets,
    Trials,
    agreement,
    by_level,
    choice_entropy,
    chosen,
    similarities,
)
from likemind.triplets import Triplets

from .conftest import answers

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = [f"i{k}" for k in range(20)]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def judged() -> Triplets:
    return answers(IDS, np.random.default_rng(0).normal(size=(20, 3)) * 1.5, 150, 4)


@pytest.fixture(scope="module")
def trials(judged: Triplets) -> Trials:
    return Trials.of(judged, IDS, "here")


def random_people(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1, 1, 1], size=n)


# ---- agreement


def test_trials_put_permuted_rows_together() -> None:
    rows = np.array([[4, 2, 7], [7, 4, 2], [2, 4, 7], [1, 0, 3]])
    odd = np.array([7, 7, 4, 0])
    choice = np.array([row.tolist().index(o) for row, o in zip(rows, odd, strict=True)])
    level = np.array(["class_border"] * 3 + ["within_class"], dtype=object)
    times = np.array([1.0, np.nan, 3.0, 5.0])
    person = np.array(["x", "y", "y", "z"], dtype=object)
    given = Triplets(
        [f"n{k}" for k in range(8)], rows, choice=choice, level=level, response_time=times, participant=person
    )
    ids = [f"n{k}" for k in range(8)][::-1]  # the embedding's rows stand the other way round: item k in row 7 − k
    found = Trials.of(given, ids, "here")
    np.testing.assert_array_equal(found.triplets, [[0, 3, 5], [4, 6, 7]])
    people = {tuple(row): p for row, p in zip(found.triplets.tolist(), found.people, strict=True)}
    # rows 0, 3, 5 are items 7, 4, 2: two found 7 odd (pair 12), one found 4 odd (pair 02)
    np.testing.assert_allclose(people[0, 3, 5], [0, 1 / 3, 2 / 3])
    # rows 4, 6, 7 are items 3, 1, 0: 0 was odd, so the pair is 01
    np.testing.assert_allclose(people[4, 6, 7], [1, 0, 0])
    assert found.level.tolist() == ["class_border", "within_class"]
    assert found.trial_triplet.tolist() == [0, 0, 1]
    assert found.trial_time.tolist() == [1.0, 3.0, 5.0]
    assert len(set(found.trial_person.tolist())) == 3
    np.testing.assert_allclose(found.mean_time(), [2.0, 5.0])
    np.testing.assert_allclose(found.ceiling, [2 / 3, 1])
    with pytest.raises(LikemindError, match="name 1 items that here lacks"):
        Trials.of(given, ids[1:], "here")


def test_agreement_is_a_slow_loop(trials: Trials) -> None:
    Z = unit(np.random.default_rng(1).normal(size=(20, 6)))
    cosines = similarities(Z, trials)
    values = agreement(cosines, trials.people)
    for row, people, value in zip(trials.triplets, trials.people, values, strict=True):
        s = [sum(float(x) * float(y) for x, y in zip(Z[row[a]], Z[row[b]], strict=True)) for a, b in PAIRS]
        assert value == people[s.index(max(s))]
    means = by_level(chosen(cosines), trials, 0)
    assert list(means) == ["all", "between_class", "class_border", "within_class"]
    assert means["all"].value == pytest.approx(values.mean())
    for name in list(means)[1:]:
        assert means[name].value == pytest.approx(values[trials.level == name].mean())
        assert means[name].n == (trials.level == name).sum()


def test_known_answers(trials: Trials) -> None:
    knows = torch.from_numpy(np.log(trials.people + 1e-9))
    right = trials.people.max(1) > np.sort(trials.people, axis=1)[:, 1] + 1e-9  # the others are ties of people's own
    np.testing.assert_array_equal(agreement(knows, trials.people)[right], trials.ceiling[right])
    constant = torch.full((len(trials.people), 3), 0.4)
    assert agreement(constant, trials.people).sum() == 0
    everything_equal = similarities(np.ones((20, 4), np.float32) / 2, trials)
    assert agreement(everything_equal, trials.people).sum() == 0
    guesses = torch.from_numpy(np.random.default_rng(0).normal(size=(3000, 3)))
    low, high = mean_estimate(agreement(guesses, random_people(3000)), 0).interval
    assert low < 1 / 3 < high
    assert high - low < 0.05


# ---- response times


def test_entropy_against_time_is_spearmans(trials: Trials) -> None:
    nats = np.random.default_rng(3).random(len(trials.triplets)).round(1)  # with ties
    whole = TimedTriplets(trials, 0)
    found = whole.correlate(nats)
    assert found.value == pytest.approx(spearmanr(nats, trials.mean_time()).statistic)
    assert found.n == len(trials.triplets)
    mask = trials.level == "class_border"
    part = TimedTriplets(trials, 0, mask).correlate(nats)
    assert part.value == pytest.approx(spearmanr(nats[mask], trials.mean_time()[mask]).statistic)
    assert part.n == mask.sum()


def test_who_doubts_where_people_do_correlates(trials: Trials) -> None:
    log_p = torch.from_numpy(np.log(trials.people + 0.05)).log_softmax(1)
    nats = choice_entropy(log_p)
    for row, value in zip(log_p.exp().numpy()[:20], nats, strict=False):
        assert value == pytest.approx(-sum(x * math.log(x) for x in row))
    timed = TimedTriplets(trials, 0)
    found = timed.correlate(nats)
    low, high = found.interval
    assert 0.2 < low < found.value < high
    assert timed.correlate(-nats).value == pytest.approx(-found.value)
    again = TimedTriplets(trials, 0).correlate(nats)
    assert isinstance(found, Crossed)
    assert isinstance(again, Crossed)
    for name in ("stimuli", "people", "both"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert timed.correlate(np.ones_like(nats)).value == 0.0


def test_people_are_resampled_too(trials: Trials) -> None:
    """With one person's clock off by a lot, the interval must be wider than that of triplets alone."""
    slow = trials.trial_time + 20 * (trials.trial_person == 0)
    nats = choice_entropy(torch.from_numpy(np.log(trials.people + 0.05)).log_softmax(1))
    both = TimedTriplets(replace(trials, trial_time=slow), 0).correlate(nats).interval
    nobody = np.zeros_like(trials.trial_person)
    alone = TimedTriplets(replace(trials, trial_time=slow, trial_person=nobody), 0).correlate(nats).interval
    assert both[1] - both[0] > 1.15 * (alone[1] - alone[0])


def test_nobody_was_timed() -> None:
    given = Triplets(IDS, np.array([[0, 1, 2]]), choice=np.array([0]))
    trials = Trials.of(given, IDS, "here")
    assert TimedTriplets(trials, 0).n == 0
    assert np.isnan(trials.mean_time()).all()


# ---- few-shot


CATEGORIES = [f"c{k % 4}" for k in range(52)] + ["rare"] * 3


def embedding(width: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, width)) * 0.35
    label = np.unique(CATEGORIES, return_inverse=True)[1]
    return unit(centres[label] + rng.normal(size=(55, width)))


@pytest.mark.parametrize("k", [1, 5])
def test_tasks_are_fair_and_do_not_look_at_the_embedding(k: int) -> None:
    tasks = draw_episodes(CATEGORIES, k, 0)
    assert len(tasks) >= 20
    names = np.array(CATEGORIES)
    for task in tasks:
        assert not set(task.support.tolist()) & set(task.query.tolist())
        assert np.bincount(task.support_class).tolist() == [k] * len(set(task.support_class.tolist()))
        assert set(np.bincount(task.query_class).tolist()) <= ({min(QUERIES, 13 - k)} | ({2} if k == 1 else set()))
        for rows, classes in ((task.support, task.support_class), (task.query, task.query_class)):
            assert len(set(zip(names[rows].tolist(), classes.tolist(), strict=True))) == len(set(classes.tolist()))
    assert ("rare" in names[tasks[0].support]) == (k == 1)
    assert chance(tasks) == (1 / 5 if k == 1 else 1 / 4)
    again, other = draw_episodes(CATEGORIES, k, 0), draw_episodes(CATEGORIES, k, 1)
    assert all(
        np.array_equal(a.support, b.support) and np.array_equal(a.query, b.query)
        for a, b in zip(tasks, again, strict=True)
    )
    assert any(not np.array_equal(a.support, b.support) for a, b in zip(tasks, other, strict=True))


def test_too_few_images_for_a_task() -> None:
    with pytest.raises(LikemindError, match="13-shot tasks need two categories with more than 13 images"):
        draw_episodes(CATEGORIES, 13, 0)


@pytest.mark.parametrize("width", [80, 20])
@pytest.mark.parametrize("k", [1, 5])
def test_ridge_is_scikit_learns_on_the_raw_rows(width: int, k: int) -> None:
    rows, tasks = embedding(width), draw_episodes(CATEGORIES, k, 0, episodes=10)
    wanted = []
    for task in tasks:
        fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows[task.support].astype(float), task.support_class)
        wanted.append((fitted.predict(rows[task.query].astype(float)) == task.query_class).mean())
    found = fewshot(rows, tasks, 0)
    assert found.value == pytest.approx(np.mean(wanted), abs=1e-9)
    assert found.n == 10
    assert chance(tasks) < found.value < 1
    assert (ALPHAS[0], ALPHAS[-1]) == (1e-3, 1e3)


def test_centroid_is_a_slow_loop() -> None:
    rows, tasks = embedding(), draw_episodes(CATEGORIES, 5, 0, episodes=8)
    right = []
    for task in tasks:
        hits = 0
        for q, truth in zip(task.query, task.query_class, strict=True):
            cosines = []
            for c in range(4):
                mean = rows[task.support[task.support_class == c]].mean(0)
                cosines.append(float(rows[q] @ mean) / float(np.linalg.norm(mean)))
            hits += cosines.index(max(cosines)) == truth
        right.append(hits / len(task.query))
    assert fewshot(rows, tasks, 0, method="centroid").value == pytest.approx(np.mean(right), abs=1e-9)


@pytest.mark.parametrize("method", ["ridge", "centroid"])
def test_a_rotation_changes_nothing(method: str) -> None:
    rows, tasks = embedding(), draw_episodes(CATEGORIES, 5, 0, episodes=10)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(80, 80)))[0]
    before = fewshot(rows, tasks, 0, method=method)  # type: ignore[arg-type]
    after = fewshot((rows @ turn).astype(np.float32), tasks, 0, method=method)  # type: ignore[arg-type]
    wide = fewshot(np.pad(rows, ((0, 0), (0, 50))), tasks, 0, method=method)  # type: ignore[arg-type]
    assert after.value == pytest.approx(before.value, abs=0.01)
    assert wide.value == pytest.approx(before.value, abs=1e-9)


def test_nothing_to_be_learned_is_chance() -> None:
    tasks = draw_episodes(CATEGORIES[:52], 5, 0, episodes=40)
    low, high = fewshot(unit(np.random.default_rng(8).normal(size=(52, 10))), tasks, 0).interval
    assert low - 0.05 < 0.25 < high + 0.05
    assert fewshot(embedding(), tasks, 0).interval[0] > 0.4


def test_few_shot_calibration_is_a_slow_loop() -> None:
    """Fitted on every other task, scored on those between; bins over all queries."""
    rows, tasks = embedding(), draw_episodes(CATEGORIES[:52], 5, 0, episodes=6)
    scores = []
    for task in tasks:
        fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows[task.support].astype(float), task.support_class)
        scores.append(fitted.decision_function(rows[task.query].astype(float)))
    tau = []
    for half in (0, 1):
        both = np.concatenate(scores[half::2])
        truth = np.concatenate([task.query_class for task in tasks[half::2]])
        grid = np.exp(np.linspace(-6, 3, 4000))
        nats = [-(log_softmax(both / t, axis=1)[np.arange(len(truth)), truth]).mean() for t in grid]
        tau.append(grid[int(np.argmin(nats))])
    nats, gap = [], np.zeros(15)
    for number, (task, score) in enumerate(zip(tasks, scores, strict=True)):
        log_p = log_softmax(score / tau[1 - number % 2], axis=1)
        nats.append(-np.mean([log_p[q, y] for q, y in enumerate(task.query_class)]))
        for q, y in enumerate(task.query_class):
            confidence = float(np.exp(log_p[q].max()))
            gap[min(int(confidence * 15), 14)] += confidence - (log_p[q].argmax() == y)
    found = fewshot_calibrated(rows, tasks, 0)
    assert found["fewshot"].value == pytest.approx(fewshot(rows, tasks, 0).value)
    assert found["fewshot_nll"].value == pytest.approx(np.mean(nats), abs=1e-3)
    queries = sum(len(task.query) for task in tasks)
    assert found["fewshot_ece"].value == pytest.approx(np.abs(gap).sum() / queries, abs=0.02)
    assert {one.n for one in found.values()} == {6}


def test_who_learns_nothing_says_so() -> None:
    tasks = draw_episodes(CATEGORIES[:52], 5, 0, episodes=40)
    blind = fewshot_calibrated(unit(np.random.default_rng(8).normal(size=(52, 10))), tasks, 0)
    assert blind["fewshot_nll"].value == pytest.approx(np.log(4), abs=0.05)
    assert blind["fewshot_ece"].value < 0.08
    right = fewshot_calibrated(unit(np.eye(4)[[k % 4 for k in range(52)]] + 1e-3), tasks, 0)
    assert right["fewshot_nll"].value < 0.01
    assert right["fewshot_ece"].value < 0.01


def test_two_classes_have_two_scores() -> None:
    rows, tasks = embedding()[:52], draw_episodes([f"c{k % 2}" for k in range(52)], 5, 0, episodes=6)
    for task, scores in zip(tasks, decisions(rows, tasks, "ridge"), strict=True):
        fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows[task.support].astype(float), task.support_class)
        np.testing.assert_array_equal(scores.argmax(axis=1), fitted.predict(rows[task.query].astype(float)))


# ---- classes learned from many images


def test_halves_are_fair() -> None:
    learn, test = halves(CATEGORIES, 0)
    names = np.array(CATEGORIES)
    assert not set(learn.tolist()) & set(test.tolist())
    assert "rare" not in names[np.concatenate([learn, test])]
    assert np.unique(names[learn], return_counts=True)[1].tolist() == [6] * 4
    assert np.unique(names[test], return_counts=True)[1].tolist() == [7] * 4
    assert [len(part) for part in halves(["a"] * 9 + ["b"] * 3, 0)] == [0, 0]


def test_a_vote_of_neighbours_is_a_slow_loop() -> None:
    rows = embedding()
    learn, test = halves(CATEGORIES, 3)
    right = 0
    for q in test:
        near = sorted(learn, key=lambda k: -float(rows[q].astype(float) @ rows[k].astype(float)))[:20]
        votes: dict[str, float] = {}
        for k in near:
            weight = math.exp(float(rows[q].astype(float) @ rows[k].astype(float)) / 0.07)
            votes[CATEGORIES[k]] = votes.get(CATEGORIES[k], 0.0) + weight
        right += max(votes, key=votes.__getitem__) == CATEGORIES[q]
    found = nearest_neighbours(rows, CATEGORIES, 3)
    assert (found.value, found.n) == (pytest.approx(right / len(test)), len(test))


def test_the_probe_is_scikit_learns_on_the_raw_rows() -> None:
    for width in (20, 80):
        rows = embedding(width)
        learn, test = halves(CATEGORIES, 3)
        names = np.array(CATEGORIES)
        fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows[learn].astype(float), names[learn])
        wanted = (fitted.predict(rows[test].astype(float)) == names[test]).mean()
        assert linear_probe(rows, CATEGORIES, 3).value == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("learn", [nearest_neighbours, linear_probe])
def test_known_embeddings_and_many_images(learn: Callable[..., Resampled]) -> None:
    clear = unit(np.eye(5)[np.unique(CATEGORIES, return_inverse=True)[1]] + 1e-3)
    assert learn(clear, CATEGORIES, 0).value == 1.0
    low, high = learn(unit(np.random.default_rng(0).normal(size=(55, 8))), CATEGORIES, 0).interval
    assert low < 0.25 + 0.1
    assert high > 0.25 - 0.1

from __future__ import annotations

import math

import numpy as np
import pytest

from likemind.evaluation.calibration import (
    BINS,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    risk_coverage_area,
)
from likemind.evaluation.clusters import Clusters
from likemind.evaluation.intervals import Clustered, Resampled
from likemind.evaluation.odd_one_out import Trials

NONE = np.zeros(0, dtype=np.int64)
MEASURES = {
    "ece": expected_calibration_error,
    "adaptive": lambda p, trials, seed, **more: expected_calibration_error(p, trials, seed, adaptive=True, **more),
    "brier": brier_score,
    "nll": lambda p, trials, seed, **more: negative_log_likelihood(np.log(p), trials, seed, **more),
    "risk": risk_coverage_area,
}


def random_people(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1, 1, 1], size=n)


def trials_of(people: np.ndarray, seed: int = 0) -> Trials:
    items = np.stack([np.random.default_rng([seed, k]).choice(60, 3, replace=False) for k in range(len(people))])
    level = np.full(len(people), "", dtype=object)
    return Trials(items, people, level, NONE, NONE, np.zeros(0), Clusters(items, people, NONE, NONE, NONE))


def slow_ece(p: np.ndarray, people: np.ndarray, bin_of: list[int]) -> float:
    total = 0.0
    for b in range(BINS):
        inside = [i for i in range(len(p)) if bin_of[i] == b]
        if inside:
            gap = np.mean([p[i].max() for i in inside]) - np.mean([people[i][p[i].argmax()] for i in inside])
            total += len(inside) / len(p) * abs(gap)
    return total


def test_calibration_error_is_a_slow_loop() -> None:
    p, people = random_people(300, 1), random_people(300, 2)
    p[:4] = [[1, 0, 0], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.4, 0.2]]
    width = [next(b for b in range(BINS) if p[i].max() < (b + 1) / BINS or b == BINS - 1) for i in range(300)]
    found = expected_calibration_error(p, trials_of(people), 7)
    assert found.value == pytest.approx(slow_ece(p, people, width), abs=1e-9)
    assert found.n == 300
    rank = sorted(range(300), key=lambda i: p[i].max())
    equal = [rank.index(i) // 20 for i in range(300)]
    assert max(equal) == BINS - 1
    found = expected_calibration_error(p, trials_of(people), 7, adaptive=True)
    assert found.value == pytest.approx(slow_ece(p, people, equal), abs=1e-9)


def test_brier_and_likelihood_are_slow_loops() -> None:
    people, p = random_people(200), random_people(200, 3)
    nats = squares = 0.0
    for row, q in zip(people, p, strict=True):
        for answer in range(3):
            nats -= row[answer] * math.log(q[answer])
            squares += row[answer] * sum((q[k] - (k == answer)) ** 2 for k in range(3))
    assert negative_log_likelihood(np.log(p), trials_of(people), 0).value == pytest.approx(nats / 200)
    assert brier_score(p, trials_of(people), 0).value == pytest.approx(squares / 200)


def test_risk_coverage_is_a_slow_loop() -> None:
    people, p = random_people(80), random_people(80, 3)
    order = sorted(range(80), key=lambda i: -p[i].max())
    risks = []
    for covered in range(1, 81):
        lost = [1 - people[i][p[i].argmax()] for i in order[:covered]]
        risks.append(sum(lost) / covered)
    found = risk_coverage_area(p, trials_of(people), 0)
    assert found.value == pytest.approx(sum(risks) / 80)
    turn = np.random.default_rng(0).permutation(80)
    assert risk_coverage_area(p[turn], trials_of(people[turn]), 0).value == pytest.approx(found.value)


def test_known_models() -> None:
    people = random_people(400)
    trials = trials_of(people)
    best, sure, guess = people, np.eye(3)[people.argmax(1)], np.full((400, 3), 1 / 3)
    assert expected_calibration_error(best, trials, 0).value == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(best, trials, 0, adaptive=True).value == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(sure, trials, 0).value == pytest.approx(1 - people.max(1).mean())
    nats = -(people * np.log(people)).sum(1).mean()
    assert negative_log_likelihood(np.log(best), trials, 0).value == pytest.approx(nats)
    assert negative_log_likelihood(np.log(guess), trials, 0).value == pytest.approx(np.log(3))
    assert brier_score(best, trials, 0).value == pytest.approx((1 - (people**2).sum(1)).mean())
    assert brier_score(guess, trials, 0).value == pytest.approx(2 / 3)
    for p in (random_people(400, 5), sure, guess):
        assert brier_score(p, trials, 0).value >= brier_score(best, trials, 0).value
        assert negative_log_likelihood(np.log(np.maximum(p, 1e-9)), trials, 0).value >= nats
    area = risk_coverage_area(best, trials, 0).value
    assert area < 1 - people.max(1).mean() < risk_coverage_area(-best + 1, trials, 0).value
    flat = risk_coverage_area(guess, trials, 0).value
    assert flat == pytest.approx(1 - people[:, 0].mean()), "ties in confidence share their mean"
    low, high = risk_coverage_area(random_people(400, 8), trials, 0).interval
    assert low < 2 / 3 < high


@pytest.mark.parametrize("name", MEASURES)
def test_intervals_of_each_are_about_as_wide_as_repeated_studies_scatter(name: str) -> None:
    """Independent triplets, so that both kinds of interval must say what repetition says."""
    rng = np.random.default_rng(0)
    values, errors = [], {"clustered": [], "independent": []}
    for number in range(120):
        p = rng.dirichlet([2, 2, 2], size=600)
        people = 0.3 * p + 0.7 * rng.dirichlet([1, 1, 1], size=600)  # far from calibrated: no gap near zero
        trials = trials_of(people, number) if number < 12 else trials_of(people, 0)
        values.append(MEASURES[name](p, trials, 0).value)
        if number < 12:
            for kind, found in errors.items():
                estimate = MEASURES[name](p, trials, 0, intervals=kind)
                assert isinstance(estimate, Clustered if kind == "clustered" else Resampled)
                assert estimate.value == pytest.approx(values[-1])
                found.append(estimate.error[0])
    scatter = np.std(values)
    assert np.mean(errors["independent"]) == pytest.approx(scatter, rel=0.25)
    assert np.mean(errors["clustered"]) == pytest.approx(scatter, rel=0.35)

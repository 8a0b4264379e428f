"""Intervals: resampling, clusters, pairing, Holm; and that they hold the truth as often as they say."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from likemind.evaluation.bootstrap import SAMPLES, bootstrap_sums, draws
from likemind.evaluation.clusters import Clusters, Sharing
from likemind.evaluation.intervals import (
    Clustered,
    Crossed,
    Resampled,
    clustered_mean,
    compare,
    corrected,
    holm,
    mean_estimate,
)
from likemind.evaluation.odd_one_out import TimedTriplets, Trials
from likemind.evaluation.results import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from likemind.evaluation.intervals import Estimate

NOBODY = np.zeros(0, dtype=np.int64)


# --- resampling


def test_rows_are_drawn_evenly_and_independently() -> None:
    rows = np.stack([draws(51, 3, sample) for sample in range(SAMPLES)])
    counts = np.stack([np.bincount(row, minlength=51) for row in rows])
    assert rows.max() == 50
    assert counts.var() == pytest.approx(1 - 1 / 51, rel=0.05)
    even = len(rows) / 51 * 51
    assert np.abs(counts.sum(axis=0) - even).max() < 5 * np.sqrt(even)
    assert abs(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1]) < 0.1
    np.testing.assert_array_equal(draws(51, 3, 7), rows[7])
    assert (draws(51, 4, 7) != rows[7]).any()


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_rows_drawn(n: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(n, columns))
    found = bootstrap_sums(values, seed, samples=7)
    for sample in range(7):
        np.testing.assert_allclose(found[sample], values[draws(n, seed, sample, 7)].sum(axis=0), atol=1e-9)


def test_a_mean_and_its_replicates_are_the_written_out_ones() -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=30), rng.random(30) < 0.5
    for inside in (None, mask):
        found = mean_estimate(values, 1, inside)
        keep = np.ones(30, dtype=bool) if inside is None else inside
        assert found.value == pytest.approx(values[keep].mean())
        assert found.n == keep.sum()
        for sample, replicate in enumerate(found.replicates[:20]):
            drawn = draws(30, 1, sample)
            assert replicate == pytest.approx(values[drawn[keep[drawn]]].mean())
        assert found.interval == pytest.approx(tuple(np.percentile(found.replicates, [2.5, 97.5])))


def test_a_level_of_one_triplet_is_no_reason_to_divide_by_zero() -> None:
    mask = np.zeros(40, dtype=bool)
    mask[7] = True
    found = mean_estimate(np.arange(40.0), 0, mask)
    assert (found.value, found.n) == (7.0, 1)
    assert found.interval == (7.0, 7.0)
    assert np.isnan(found.replicates).any()
    items = np.stack([np.random.default_rng(k).choice(20, 3, replace=False) for k in range(40)])
    alone = clustered_mean(np.repeat(np.arange(40.0)[:, None], 3, axis=1), stimuli(items), mask)
    assert alone.n == 1
    assert (alone.value, *alone.interval) == pytest.approx((7.0, 7.0, 7.0))


# --- clusters


def stimuli(items: np.ndarray) -> Clusters:
    return Clusters(items, np.full((len(items), 3), 1 / 3), NOBODY, NOBODY, NOBODY)


@given(st.integers(4, 12), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_products_of_units_that_share_a_thing_are_a_slow_loop(m: int, n: int, seed: int) -> None:
    """Different triplets: the factor that makes up for the mean apart, every related pair counts once."""
    rng = np.random.default_rng(seed)
    every = np.array(list(combinations(range(m), 3)))
    items = every[rng.permutation(len(every))[:n]]
    influence = rng.normal(size=len(items))
    related = sum(
        influence[s] * influence[t]
        for s in range(len(items))
        for t in range(len(items))
        if set(items[s].tolist()) & set(items[t].tolist())
    )
    by_thing = sum(influence[[k in row for row in items.tolist()]].sum() ** 2 for k in range(m))
    found, things = Sharing(items).products(influence)
    assert things == len(np.unique(items))
    factor = (things + 3) * (things - 1) / max(things - 3, 1) ** 2
    assert found == pytest.approx(related + (factor - 1) * by_thing, abs=1e-7)


def answered(seed: int, *, m: int = 30, n: int = 120, people: int = 15, repeats: int = 4) -> tuple[Clusters, list[int]]:
    rng = np.random.default_rng(seed)
    items = np.stack([rng.choice(m, 3, replace=False) for _ in range(n)])
    triplet, pair = np.repeat(np.arange(n), repeats), rng.integers(3, size=n * repeats)
    share = np.stack([(pair.reshape(n, repeats) == k).mean(axis=1) for k in range(3)], axis=1)
    return Clusters(items, share, triplet, pair, rng.integers(people, size=len(pair))), pair.tolist()


def test_the_error_of_a_mean_over_answers_is_the_written_out_sum() -> None:
    """Σ ψ ψ' over answers that share an image or a person; corrections for finite numbers of either left out."""
    clusters, pairs = answered(0, m=60)
    by_pair = np.random.default_rng(1).normal(size=(120, 3))
    found = clustered_mean(by_pair, clusters)
    worth = np.array([by_pair[t, p] for t, p in zip(clusters.triplet, pairs, strict=True)])
    assert found.value == pytest.approx(worth.mean())
    psi = (worth - worth.mean()) / len(worth)
    shown = [set(clusters.items[t].tolist()) for t in clusters.triplet]
    total = sum(
        psi[a] * psi[b]
        for a in range(len(psi))
        for b in range(len(psi))
        if clusters.person[a] == clusters.person[b] or shown[a] & shown[b]
    )
    floor = np.bincount(clusters.triplet, psi)
    error, freedom = found.error
    assert freedom == 14
    assert error**2 == pytest.approx(max(total, float(floor @ floor)), rel=0.2)


def test_more_of_the_same_image_makes_an_interval_wider() -> None:
    rng = np.random.default_rng(0)
    items = np.stack([rng.choice(60, 3, replace=False) for _ in range(3000)])
    liked = rng.normal(size=60)
    values = liked[items].sum(axis=1) + rng.normal(size=3000)
    three = np.repeat(values[:, None], 3, axis=1)
    clustered, alone = clustered_mean(three, stimuli(items)), mean_estimate(values, 0)
    assert clustered.value == pytest.approx(alone.value)
    assert clustered.error[0] > 3 * alone.error[0]
    noise = rng.normal(size=3000)
    flat = clustered_mean(np.repeat(noise[:, None], 3, axis=1), stimuli(items))
    assert flat.error[0] == pytest.approx(noise.std() / np.sqrt(3000), rel=0.35)


def test_the_order_of_triplets_and_names_of_items_count_for_nothing() -> None:
    clusters, _ = answered(3)
    by_pair = np.random.default_rng(1).normal(size=(120, 3))
    turn, names = np.random.default_rng(2).permutation(120), np.random.default_rng(3).permutation(30)
    place = np.argsort(turn)
    other = Clusters(
        names[clusters.items[turn]],
        clusters.people[turn],
        place[clusters.triplet],
        clusters.pair,
        clusters.person + 100,
    )
    assert clustered_mean(by_pair[turn], other).error == pytest.approx(clustered_mean(by_pair, clusters).error)


# --- pairing


def both_kinds(values: np.ndarray) -> list[Estimate]:
    rng = np.random.default_rng(9)
    items = np.stack([rng.choice(50, 3, replace=False) for _ in range(len(values))])
    shared = stimuli(items)
    return [mean_estimate(values, 0), clustered_mean(np.repeat(values[:, None], 3, axis=1), shared)]


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    values = np.random.default_rng(0).random(60)
    for ours, theirs in zip(both_kinds(values), both_kinds(values), strict=True):
        same = compare("a", "b", "m", ours, theirs, higher_is_better=True)
        assert (same.difference, same.low, same.high, same.verdict) == (0.0, 0.0, 0.0, "no difference seen")
        assert same.p_value == 1.0


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("shift", [0.02, -0.02])
def test_pairing_sees_a_small_difference_among_large_scatter(shift: float, higher_is_better: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    better = both_kinds(values + shift + 0.01 * rng.normal(size=200))
    for ours, theirs, other in zip(better, both_kinds(values), both_kinds(rng.permutation(values)), strict=True):
        found = compare("a", "b", "m", ours, theirs, higher_is_better=higher_is_better)
        assert found.difference == pytest.approx(shift, abs=0.005)
        assert found.low < found.difference < found.high
        assert found.verdict == ("better" if (shift > 0) == higher_is_better else "worse")
        assert found.p_value is not None
        assert found.p_value < 1e-6
        assert compare("a", "b", "m", ours, other, higher_is_better=True).verdict == "no difference seen"


@pytest.mark.parametrize(
    ("replicates", "verdict"),
    [([-1.0, 1.0], "no difference seen"), ([0.0, 1.0], "better"), ([0.0, 0.0, 1.0], "no difference seen")],
)
def test_an_interval_that_touches_zero(replicates: list[float], verdict: str) -> None:
    ours = Resampled(0.5, 9, np.array(replicates))
    low = np.percentile(replicates, 2.5)
    found = compare("a", "b", "m", ours, Resampled(0.0, 9, np.zeros(len(replicates))), higher_is_better=True)
    assert found.low == low
    assert found.verdict == verdict


def test_the_p_value_is_students() -> None:
    values = np.random.default_rng(0).normal(size=40) + 0.2
    wanted = ttest_1samp(values, 0).pvalue
    assert mean_estimate(values, 0).p_value == pytest.approx(wanted, rel=0.35)
    assert mean_estimate(np.zeros(5), 0).p_value == 1.0
    assert mean_estimate(np.ones(5), 0).p_value == 0.0


def test_crossed_resampling_counts_the_scatter_of_answers_once() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(scale=scale, size=20000) for scale in (2.0, 1.5, np.sqrt(4 + 2.25 + 1))]
    found = Crossed(0.0, 50, *parts, fewest=20)
    assert found.error[0] ** 2 == pytest.approx(2 * (4 + 2.25) - 7.25, rel=0.05)
    assert found.error[1] == 19
    assert Crossed(0.0, 50, parts[0], parts[1], 9 * parts[1], fewest=20).error[0] == pytest.approx(2, rel=0.05)
    less = found.minus(Crossed(0.5, 50, *parts, fewest=20))
    assert (less.value, less.error[0], less.p_value) == (-0.5, 0.0, 0.0)


# --- many metrics


def test_holm_is_the_step_down_procedure_written_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = (rng.random(rng.integers(1, 12)) ** 3).tolist()
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for step, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
                if p[k] > level / (len(p) - step):
                    break
                rejected.add(k)
            assert {k for k, value in enumerate(adjusted) if value <= level} == rejected
        assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert holm([]) == []


def test_corrected_verdicts_only_take_back() -> None:
    def one(p: float, verdict: str) -> Comparison:
        about = {"model": "a", "against": "b", "metric": "m", "difference": 1, "low": 0, "high": 2, "n": 9}
        return Comparison(**about, p_value=p, verdict=verdict)  # type: ignore[arg-type]

    told = corrected([one(0.001, "better"), one(0.04, "worse"), one(0.04, "better"), one(0.5, "no difference seen")])
    nothing = "no difference seen"
    assert [c.verdict_corrected for c in told] == ["better", nothing, nothing, nothing]
    assert [c.verdict for c in told] == ["better", "worse", "better", nothing]
    assert corrected([one(0.04, "worse")])[0].verdict_corrected == "worse"


# --- coverage


def covered(make: Callable[[np.random.Generator], Estimate], truth: float, sets: int = 2000) -> float:
    """Return the share of simulated data sets whose interval holds the truth."""
    inside = 0
    for number in range(sets):
        low, high = make(np.random.default_rng([5, number])).interval
        inside += low <= truth <= high
    return inside / sets


def a_mean(rng: np.random.Generator) -> Estimate:
    return mean_estimate(rng.exponential(size=200), 0)


def an_image_s_effect(rng: np.random.Generator, *, m: int = 60, n: int = 900) -> Estimate:
    items = np.argsort(rng.random((n, m)), axis=1)[:, :3]
    values = 0.3 * rng.normal(size=m)[items].sum(axis=1) + rng.normal(size=n)
    return clustered_mean(np.repeat(values[:, None], 3, axis=1), stimuli(items))


def people_s_and_images_effects(rng: np.random.Generator, *, m: int = 50, n: int = 300, people: int = 30) -> Clustered:
    items = np.argsort(rng.random((n, m)), axis=1)[:, :3]
    triplet, person = np.repeat(np.arange(n), 4), rng.integers(people, size=4 * n)
    ease = 0.5 * rng.normal(size=m)[items].sum(axis=1) + 0.3 * rng.normal(size=n)
    logit = ease[triplet] + 0.6 * rng.normal(size=people)[person]
    pair = (rng.random(4 * n) < 0.5 * (1 + np.tanh(logit))).astype(int)  # symmetric: half of them pick pair 1
    share = np.stack([np.bincount(triplet, pair == k, minlength=n) / 4 for k in range(3)], axis=1)
    return clustered_mean(np.tile([0.0, 1.0, 0.0], (n, 1)), Clusters(items, share, triplet, pair, person))


def doubt_and_time(rng: np.random.Generator, *, n: int = 150, people: int = 25) -> Estimate:
    """Slow where in doubt, each person at a pace of their own: rank correlation of doubt and mean time."""
    doubt = rng.normal(size=n)
    triplet = np.repeat(np.arange(n), 5)
    person = np.tile(np.arange(people), 5 * n // people)
    pace = 0.5 * rng.normal(size=people)
    time = 0.4 * doubt[triplet] + pace[person] * (1 + doubt[triplet]) + rng.normal(size=5 * n)
    none = Clusters(np.zeros((n, 3), dtype=int), np.full((n, 3), 1 / 3), NOBODY, NOBODY, NOBODY)
    trials = Trials(np.zeros((n, 3), dtype=int), np.full((n, 3), 1 / 3), np.full(n, ""), triplet, person, time, none)
    return TimedTriplets(trials, 0).correlate(doubt)


@pytest.mark.slow
@pytest.mark.parametrize("make", [a_mean, an_image_s_effect, people_s_and_images_effects, doubt_and_time])
def test_intervals_hold_the_truth_as_often_as_they_say(
    make: Callable[..., Estimate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("likemind.evaluation.odd_one_out.RT_SAMPLES", 100)
    truths: dict[str, float] = {"a_mean": 1.0, "an_image_s_effect": 0.0, "people_s_and_images_effects": 0.5}
    truth = truths.get(make.__name__)
    if truth is None:  # a rank correlation has no closed form here: the mean of many large worlds
        monkeypatch.setattr("likemind.evaluation.odd_one_out.RT_SAMPLES", 1)
        many = [make(np.random.default_rng([6, k])).value for k in range(4000)]
        truth = float(np.mean(many))
        monkeypatch.setattr("likemind.evaluation.odd_one_out.RT_SAMPLES", 100)
    assert 0.93 <= covered(make, truth) <= 0.97


@pytest.mark.slow
def test_few_images_and_independent_intervals_undercover_as_the_pages_say() -> None:
    few = covered(lambda rng: an_image_s_effect(rng, m=12, n=150), 0.0)
    assert 0.92 <= few <= 0.985

    def alone(rng: np.random.Generator) -> Estimate:
        found = an_image_s_effect(rng)
        assert isinstance(found, Clustered)
        return mean_estimate(found.value + found.influence[:, 0] * found.n, 0)

    assert covered(alone, 0.0, 500) < 0.8

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.errors import LikemindError
from likemind.pseudolabels import sample
from likemind.pseudolabels.sample import SAMPLERS, between_class, cluster_border, uniform, within_class

LABELS = np.random.default_rng(0).integers(7, size=300).astype(np.int32)
GROUPS_IN_A_TRIPLET = {
    "cluster_border": {2},
    "class_border": {2},
    "between_class": {3},
    "within_class": {1},
    "uniform": {1, 2, 3},
}
partitions = st.lists(st.integers(0, 6), min_size=3, max_size=24).map(np.array)


def possible(name: str, labels: np.ndarray) -> set[frozenset[int]]:
    """All triplets that the sampler may draw, counted out."""
    triples = combinations(range(len(labels)), 3)
    return {frozenset(t) for t in triples if len({labels[i] for i in t}) in GROUPS_IN_A_TRIPLET[name]}


def sets(triplets: np.ndarray) -> list[frozenset[int]]:
    return [frozenset(row) for row in triplets.tolist()]


def test_all_samplers_are_tested() -> None:
    assert set(GROUPS_IN_A_TRIPLET) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 1000, 20_000])
def test_exactly_so_many_different_triplets_in_range(name: str, n: int) -> None:
    found = SAMPLERS[name](LABELS, n, seed=3)
    assert found.shape == (n, 3)
    assert found.dtype == np.int32
    assert found.min() >= 0
    assert found.max() < len(LABELS)
    assert len(set(sets(found))) == n
    assert all(len(s) == 3 for s in sets(found))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_of_the_seed_alone(name: str) -> None:
    first = SAMPLERS[name](LABELS, 500, seed=1)
    np.random.default_rng(7).normal(size=10)
    np.testing.assert_array_equal(first, SAMPLERS[name](LABELS, 500, seed=1))
    np.testing.assert_array_equal(first, SAMPLERS[name](LABELS.astype(np.int64), 500, seed=1))
    assert (first != SAMPLERS[name](LABELS, 500, seed=2)).any()


@pytest.mark.parametrize("name", SAMPLERS)
@given(labels=partitions, seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_any_partition_up_to_the_last_triplet(name: str, labels: np.ndarray, seed: int, share: float) -> None:
    allowed = possible(name, labels)
    if not allowed:
        with pytest.raises(LikemindError):
            SAMPLERS[name](labels, 1, seed=seed)
        return
    n = max(1, round(share * len(allowed)))
    found = sets(SAMPLERS[name](labels, n, seed=seed))
    assert len(set(found)) == n
    assert set(found) <= allowed
    with pytest.raises(LikemindError, match=f"{len(allowed)} different ones exist"):
        SAMPLERS[name](labels, len(allowed) + 1, seed=seed)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("at_most", [7, 1 << 18])
def test_the_last_of_few_is_found(name: str, at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([0] * 12 + [1, 1, 2])
    monkeypatch.setattr(sample, "_MAX_ROUNDS", 200 * 4096 // at_most + 1)
    monkeypatch.setattr(sample, "_AT_MOST", at_most)
    allowed = possible(name, labels)
    found = SAMPLERS[name](labels, len(allowed), seed=0)
    assert set(sets(found)) == allowed
    assert len(found) == len(allowed)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [0, -3, 10**9])
def test_impossible_numbers_are_refused_in_one_sentence(name: str, n: int) -> None:
    with pytest.raises(LikemindError, match="give --n between 1 and that") as told:
        SAMPLERS[name](LABELS, n, seed=0)
    assert "\n" not in str(told.value)


def test_too_little_to_draw_from() -> None:
    with pytest.raises(LikemindError, match="2 images make no triplet"):
        uniform(np.array([0, 1]), 1, seed=0)
    for labels in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(LikemindError, match="needs two clusters"):
            cluster_border(np.array(labels), 1, seed=0)
    with pytest.raises(LikemindError, match="three classes or clusters, got 2"):
        between_class(np.array([0, 0, 1, 1]), 1, seed=0)
    with pytest.raises(LikemindError, match="a class or cluster with three images"):
        within_class(np.array([0, 0, 1, 1]), 1, seed=0)


def test_two_of_one_group_then_one_of_another() -> None:
    groups = LABELS[cluster_border(LABELS, 5000, seed=0)]
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 2] != groups[:, 0]).all()
    assert SAMPLERS["class_border"] is cluster_border


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_group_is_asked_about_equally_often() -> None:
    """Groups of 20 to 200 images; a chi-square of 9 degrees of freedom passes 35 once in 10,000 fair draws."""
    labels = np.repeat(np.arange(10), np.arange(20, 201, 20))
    n, even = 4000, np.full(10, 400)
    found = cluster_border(labels, n, seed=11)
    assert chi_square(np.bincount(labels[found[:, 0]], minlength=10), even) < 35
    assert chi_square(np.bincount(labels[found[:, 2]], minlength=10), even) < 35
    own = found[labels[found[:, 0]] == 0]
    assert chi_square(np.bincount(own[:, :2].ravel(), minlength=20)[:20], np.full(20, len(own) / 10)) < 60
    for column in between_class(labels, n, seed=11).T:
        assert chi_square(np.bincount(labels[column], minlength=10), even) < 35
    found = within_class(labels, n, seed=11)
    assert chi_square(np.bincount(labels[found[:, 0]], minlength=10), even) < 35
    by_size = np.bincount(labels[uniform(labels, n, seed=11)].ravel(), minlength=10)
    assert chi_square(by_size, np.full(10, 3 * n / 10)) > 100  # the bound can tell
    assert chi_square(by_size, 3 * n * np.arange(1, 11) / 55) < 35


def test_images_are_even_within_their_group_at_every_position() -> None:
    """30 and 60 images; a chi-square of 59 degrees of freedom passes 105 once in 5,000 fair draws."""
    labels = np.repeat(np.arange(3), [30, 60, 60])
    for name, columns in (("within_class", (0, 1, 2)), ("cluster_border", (0, 1, 2)), ("between_class", (0, 1, 2))):
        found = SAMPLERS[name](labels, 3500, seed=5)
        for column in columns:
            for group, size in enumerate((30, 60, 60)):
                mine = found[labels[found[:, column]] == group, column]
                counts = np.bincount(mine - 30 * (group > 0) - 60 * (group > 1), minlength=size)
                assert chi_square(counts, np.full(size, len(mine) / size)) < 105, (name, column, group)
    three = within_class(np.zeros(6, dtype=int), 20, seed=0)
    assert len(set(sets(three))) == 20


@pytest.mark.slow
def test_a_big_draw_is_distinct_and_even() -> None:
    """600,000 triplets, more than a round draws, over 200,000 images."""
    labels = np.random.default_rng(1).integers(500, size=200_000)
    for name in SAMPLERS:
        found = SAMPLERS[name](labels, 600_000, seed=0)
        ordered = np.sort(found.astype(np.int64), axis=1)
        assert len(np.unique((ordered[:, 0] * 200_000 + ordered[:, 1]) * 200_000 + ordered[:, 2])) == len(found)
        if name != "uniform":  # 499 degrees of freedom: mean 499, s.d. 31.6
            assert chi_square(np.bincount(labels[found[:, 0]], minlength=500), np.full(500, 1200)) < 640

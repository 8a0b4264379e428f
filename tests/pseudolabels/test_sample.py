from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.errors import LikemindError
from likemind.pseudolabels.cluster import cluster
from likemind.pseudolabels.sample import SAMPLERS, _names, cluster_border, uniform

LABELS = np.random.default_rng(0).integers(7, size=90).astype(np.int32)
partitions = st.lists(st.integers(0, 6), min_size=3, max_size=24).map(np.array)


def possible(name: str, labels: np.ndarray) -> set[frozenset[int]]:
    """All triplets that the sampler may draw, counted out."""
    triples = combinations(range(len(labels)), 3)
    if name == "uniform":
        return {frozenset(t) for t in triples}
    return {frozenset(t) for t in triples if len({labels[i] for i in t}) == 2}


def sets(triplets: np.ndarray) -> list[frozenset[int]]:
    return [frozenset(row) for row in triplets.tolist()]


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
def test_the_last_of_few_is_found(name: str) -> None:
    labels = np.array([0] * 27 + [1, 1, 2])
    allowed = possible(name, labels)
    assert set(sets(SAMPLERS[name](labels, len(allowed), seed=0))) == allowed


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


def test_two_of_one_cluster_then_one_of_another() -> None:
    groups = LABELS[cluster_border(LABELS, 5000, seed=0)]
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 2] != groups[:, 0]).all()


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_cluster_is_asked_about_equally_often() -> None:
    """Clusters of 20 to 200 images; a chi-square of 9 degrees of freedom passes 35 once in 10,000 fair draws."""
    labels = np.repeat(np.arange(10), np.arange(20, 201, 20))
    n = 4000
    found = cluster_border(labels, n, seed=11)
    assert chi_square(np.bincount(labels[found[:, 0]], minlength=10), np.full(10, n / 10)) < 35
    assert chi_square(np.bincount(labels[found[:, 2]], minlength=10), np.full(10, n / 10)) < 35
    own = found[labels[found[:, 0]] == 0]
    assert chi_square(np.bincount(own[:, :2].ravel(), minlength=20)[:20], np.full(20, len(own) / 10)) < 60
    by_size = np.bincount(labels[uniform(labels, n, seed=11)].ravel(), minlength=10)
    assert chi_square(by_size, np.full(10, 3 * n / 10)) > 100  # the bound can tell
    assert chi_square(by_size, 3 * n * np.arange(1, 11) / 55) < 35


def test_names_tell_sets_apart_and_not_their_order() -> None:
    triples = np.array(list(combinations(range(9), 3)))
    names = _names(triples, 9)
    assert len(np.unique(names)) == len(triples)
    np.testing.assert_array_equal(names, _names(triples[:, [2, 0, 1]], 9))
    largest = 2_600_000
    assert _names(np.array([[largest - 3, largest - 2, largest - 1]]), largest)[0] == int(
        ((largest - 3) * largest + largest - 2) * largest + largest - 1
    )


def test_clusters_are_found_and_are_the_same_again() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=200)
    X = 20 * np.eye(4)[truth] + rng.normal(size=(200, 4))
    found = cluster(X, 4, seed=0)
    pairs = set(zip(truth.tolist(), found.labels.tolist(), strict=True))
    assert len(pairs) == 4
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found.sizes), np.sort(np.bincount(truth)))
    centres = np.stack([X[found.labels == k].mean(0) for k in range(4)])
    assert found.inertia == pytest.approx(((X - centres[found.labels]) ** 2).sum(), rel=1e-3)
    again = cluster(X, 4, seed=0)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert again.inertia == found.inertia
    noise = rng.normal(size=(300, 8))
    assert (cluster(noise, 9, seed=0).labels != cluster(noise, 9, seed=1).labels).any()


@pytest.mark.parametrize("k", [1, 0, 6])
def test_impossible_clusters(k: int) -> None:
    with pytest.raises(LikemindError, match=f"5 images cannot be put into {k} clusters"):
        cluster(np.zeros((5, 2)), k, seed=0)


def test_clusters_of_what_is_not_finite() -> None:
    with pytest.raises(LikemindError, match="not finite"):
        cluster(np.array([[0.0], [np.nan], [1.0]]), 2, seed=0)

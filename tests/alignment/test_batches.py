from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from likemind.alignment.batches import by_cluster, fresh_batch, independent_batch, packed_batch
from likemind.alignment.recipe import Recipe
from likemind.errors import LikemindError
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from likemind.alignment.batches import Batch

CLUSTERS = np.random.default_rng(0).integers(20, size=400)


def same(a: Batch, b: Batch) -> bool:
    return np.array_equal(a.images, b.images) and np.array_equal(a.triplets, b.triplets)


@given(
    labels=st.lists(st.integers(0, 9), min_size=2, max_size=120).map(np.array),
    images=st.integers(3, 40),
    clusters=st.integers(2, 20),
    triplets=st.integers(1, 101),
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**6),
)
@example(labels=np.arange(60) % 10, images=3, clusters=10, triplets=9, seed=0, step=0)
@example(labels=np.arange(60) % 10, images=10, clusters=10, triplets=9, seed=0, step=0)
def test_any_packed_batch_is_valid(
    labels: np.ndarray, images: int, clusters: int, triplets: int, seed: int, step: int
) -> None:
    recipe = Recipe(images=images, clusters=clusters, triplets=triplets)
    if (np.bincount(labels) > 1).sum() < 2:
        with pytest.raises(LikemindError, match="need two clusters with two images each"):
            packed_batch(labels, recipe, seed, step)
        return
    batch = packed_batch(labels, recipe, seed, step)
    assert len(set(batch.images.tolist())) == len(batch.images) <= max(4, images + clusters)
    assert set(batch.images.tolist()) <= set(range(len(labels)))
    assert len(set(labels[batch.images].tolist())) <= max(2, clusters)
    assert batch.triplets.shape == (triplets, 3)
    assert batch.triplets.min() >= 0
    assert batch.triplets.max() < len(batch.images)
    assert all(len(set(row)) == 3 for row in batch.triplets.tolist())
    groups = labels[batch.images][batch.triplets[: triplets // 2]]
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 2] != groups[:, 0]).all()
    assert batch.similarities is None


def test_the_size_is_what_was_asked_for_where_clusters_are_large() -> None:
    batch = packed_batch(CLUSTERS, Recipe(images=60, clusters=12, triplets=50), 0, 0)
    assert len(batch.images) == 60
    assert np.bincount(CLUSTERS[batch.images]).max() == 5
    assert len(set(CLUSTERS[batch.images].tolist())) == 12


def test_a_function_of_seed_and_step_alone() -> None:
    recipe = Recipe(images=48, clusters=6, triplets=64)
    first = [packed_batch(CLUSTERS, recipe, 5, step) for step in range(4)]
    np.random.default_rng(1).normal(size=3)
    for step in (3, 1, 0, 2):
        assert same(packed_batch(CLUSTERS, recipe, 5, step), first[step])
    assert not same(first[0], first[1])
    assert not same(first[0], packed_batch(CLUSTERS, recipe, 6, 0))


def test_every_image_and_every_place_in_a_group_is_used() -> None:
    recipe = Recipe(images=40, clusters=8, triplets=4000)
    batch = packed_batch(CLUSTERS, recipe, 0, 0)
    border, free = batch.triplets[:2000], batch.triplets[2000:]
    for column in range(3):
        for part in (border, free):
            counts = np.bincount(part[:, column], minlength=40)
            assert ((counts - 50) ** 2 / 50).sum() < 100  # 39 degrees of freedom: once in a million
    seen = np.unique(np.concatenate([packed_batch(CLUSTERS, recipe, 0, s).images for s in range(300)]))
    assert len(seen) == 400


def labels_of(n: int = 37) -> tuple[Triplets, np.ndarray]:
    rng = np.random.default_rng(2)
    ids = [f"{k}" for k in range(12)]
    indices = np.stack([rng.choice(12, 3, replace=False) for _ in range(n)])
    triplets = Triplets(ids, indices, similarities=rng.normal(size=(n, 3)).astype(np.float32), source="pseudo")
    return triplets, triplets.positions_in([f"{k}" for k in (*range(50, 60), *range(12))], "here")


@pytest.mark.parametrize("size", [5, 37, 50])
def test_each_label_comes_once_a_pass(size: int) -> None:
    labels, positions = labels_of()
    recipe = Recipe(target="paper", batching="independent", triplets=size)
    assert labels.similarities is not None
    key = {tuple(row): k for k, row in enumerate(labels.similarities.tolist())}
    seen: list[int] = []
    for step in range(-(-3 * 37 // size)):
        batch = independent_batch(labels, positions, recipe, 9, step)
        assert batch.similarities is not None
        assert len(batch.triplets) == size
        assert len(set(batch.images.tolist())) == len(batch.images)
        which = [key[tuple(row)] for row in batch.similarities.tolist()]
        np.testing.assert_array_equal(batch.images[batch.triplets], positions[which])
        seen += which
    passes = [seen[k : k + 37] for k in (0, 37, 74)]
    assert all(sorted(one) == list(range(37)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(37))


def test_independent_batches_depend_on_seed_and_step_alone() -> None:
    labels, positions = labels_of()
    recipe = Recipe(target="paper", batching="independent", triplets=5)
    first = independent_batch(labels, positions, recipe, 0, 9)
    for step in (0, 30, 9):
        again = independent_batch(labels, positions, recipe, 0, step)
    assert same(first, again)
    assert not same(first, independent_batch(labels, positions, recipe, 1, 9))


@given(
    labels=st.lists(st.integers(0, 9), min_size=3, max_size=120).map(np.array),
    triplets=st.integers(1, 101),
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**6),
)
def test_any_fresh_batch_is_valid(labels: np.ndarray, triplets: int, seed: int, step: int) -> None:
    if (np.bincount(labels) > 1).sum() < 2:
        with pytest.raises(LikemindError, match="need two clusters with two images each"):
            by_cluster(labels)
        return
    grouped = by_cluster(labels)
    batch = fresh_batch(grouped, Recipe(batching="independent", triplets=triplets), seed, step)
    assert same(batch, fresh_batch(grouped, Recipe(batching="independent", triplets=triplets), seed, step))
    assert len(set(batch.images.tolist())) == len(batch.images)
    chosen = batch.images[batch.triplets]
    assert chosen.shape == (triplets, 3)
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    groups = labels[chosen[: triplets // 2]]
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 2] != groups[:, 0]).all()
    assert batch.similarities is None


def test_fresh_images_come_from_everywhere_alike() -> None:
    grouped = by_cluster(CLUSTERS)
    recipe = Recipe(batching="independent", triplets=2000)
    chosen = [(b := fresh_batch(grouped, recipe, 0, step)).images[b.triplets] for step in range(10)]
    for column in range(3):
        for half in (slice(None, 1000), slice(1000, None)):
            counts = np.bincount(np.concatenate([rows[half, column] for rows in chosen]), minlength=400)
            if column != 2 or half.start is not None:  # the odd one of a border comes more often from small clusters
                assert ((counts - 25) ** 2 / 25).sum() < 550  # 399 degrees of freedom: once in a million
            assert (counts > 0).all()

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from likemind.choice import PAIRS
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore
from likemind.pseudolabels import blocks, dots
from likemind.pseudolabels.dots import aligned_features, pair_products

from .conftest import make_store, make_teacher

if TYPE_CHECKING:
    from pathlib import Path


def slow(rows: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return np.array([[sum(wide[t[a]] * wide[t[b]]) for a, b in PAIRS] for t in triplets])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 7, 64, 513])
def test_the_kernel_is_numpys_dot_product(width: int, dtype: type) -> None:
    rng = np.random.default_rng(width)
    rows = rng.normal(size=(30, width)).astype(dtype)
    triplets = rng.integers(30, size=(40, 3)).astype(np.int32)
    found = pair_products(rows, triplets)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow(rows, triplets), atol=2e-6 * width**0.5)


def test_every_finite_float16_is_read_as_it_is() -> None:
    rows = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, None]
    finite = np.flatnonzero(np.isfinite(rows[:, 0]))
    one = int(np.float16(1).view(np.uint16))
    triplets = np.stack([finite, np.full_like(finite, one), np.full_like(finite, one)], axis=1).astype(np.int32)
    np.testing.assert_array_equal(pair_products(rows, triplets)[:, 0], rows[finite, 0].astype(np.float32))


def test_a_block_at_a_time_is_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(50, 6))
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 6, "a" * 64)
    monkeypatch.setattr(blocks, "BLOCK", 7)
    found = aligned_features(store, teacher, tmp_path / "aligned")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, teacher.transform(np.asarray(store.features)), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(dots, "_WIDE", 50 * 6 * 4 - 1)
    half = aligned_features(store, teacher, tmp_path / "half")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, found.astype(np.float16))


def test_float16_errs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 300))
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 300, "a" * 64)
    triplets = np.stack([rng.permutation(400)[:3] for _ in range(2000)]).astype(np.int32)
    exact = slow(teacher.transform(np.asarray(store.features)), triplets)
    monkeypatch.setattr(dots, "_WIDE", 0)
    error = pair_products(aligned_features(store, teacher, tmp_path / "half"), triplets) - exact
    assert np.sqrt(np.square(error).mean()) < 1e-3 * exact.std()
    assert np.abs(error).max() < 5e-3 * exact.std()


def test_a_float16_store_is_taken(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16)
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 6, "a" * 64)
    np.save(tmp_path / "narrow.npy", X)
    narrow = FeatureStore(store.path, store.ids, np.load(tmp_path / "narrow.npy", mmap_mode="r"), store.run)
    found = aligned_features(narrow, teacher, tmp_path / "a")
    np.testing.assert_array_equal(found, aligned_features(store, teacher, tmp_path / "b"))


def test_features_are_not_held_in_memory(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float32)
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 64, "a" * 64)
    tracemalloc.start()
    try:
        aligned_features(store, teacher, tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.4 * X.nbytes


@pytest.mark.parametrize(("value", "wide"), [(np.nan, 1 << 30), (np.inf, 1 << 30), (1e6, 0)])
def test_what_cannot_be_kept_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, wide: int) -> None:
    X = np.random.default_rng(0).normal(size=(30, 6))
    X[17, 2] = value
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 6, "a" * 64)
    monkeypatch.setattr(dots, "_WIDE", wide)
    with pytest.raises(LikemindError, match=r"teacher's features of '17.png' are not finite in float"):
        aligned_features(store, teacher, tmp_path / "a")

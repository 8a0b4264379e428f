"""Several stores as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from likemind.artifacts import Artifact
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore, joined
from likemind.triplets import write_table

if TYPE_CHECKING:
    from pathlib import Path

IDS = ["ant", "bee", "cow", "dog"]


def make(path: Path, ids: list[str], width: int, seed: int) -> FeatureStore:
    rows = np.random.default_rng(seed).normal(size=(len(ids), width)).astype(np.float32)
    with Artifact(path, verb="embed", config={"backbone": f"{seed}" * 64}, inputs={"seed": str(seed)}) as work:
        np.save(work.path / "features.npy", rows)
        write_table(work.path / "items.parquet", pa.table({"id": ids}))
        work.figures = {"backbone_name": f"net-{seed}"}
    return FeatureStore.load(path)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[FeatureStore, FeatureStore, FeatureStore]:
    other = ["dog", "eel", "bee", "ant", "cow"]
    return make(tmp_path / "a", IDS, 3, 1), make(tmp_path / "b", other, 2, 2), make(tmp_path / "c", IDS, 4, 3)


def test_rows_stand_side_by_side_by_id(stores: tuple[FeatureStore, ...]) -> None:
    a, b, c = stores
    both = joined([a, b, c])
    assert both.ids == IDS
    assert both.blocks == [3, 2, 4]
    assert both.features.shape == (4, 9)
    assert len(both.features) == 4
    wanted = np.stack([np.concatenate([store.rows([name])[0] for store in stores]) for name in IDS])
    np.testing.assert_array_equal(both.rows(IDS), wanted)
    np.testing.assert_array_equal(both.rows(["dog", "ant"]), wanted[[3, 0]])
    np.testing.assert_array_equal(np.asarray(both.features), wanted)
    np.testing.assert_array_equal(both.features[1:3], wanted[1:3])
    np.testing.assert_array_equal(both.features[np.array([2, 2])], wanted[[2, 2]])
    assert both.rows(IDS).dtype == np.float32
    assert both.run["figures"]["backbone_name"] == "net-1 + net-2 + net-3"


def test_load_joins_folders_and_stores(stores: tuple[FeatureStore, ...]) -> None:
    a, b, c = stores
    both = FeatureStore.load([a.path, b])
    np.testing.assert_array_equal(both.rows(IDS), joined([a, b]).rows(IDS))
    assert both.key == joined([a, b]).key
    nested = FeatureStore.load([both, str(c.path)])
    assert nested.blocks == [3, 2, 4]
    np.testing.assert_array_equal(nested.rows(IDS), joined([a, b, c]).rows(IDS))
    alone = FeatureStore.load([a])
    assert (alone.key, alone.fingerprint, alone.blocks) == (a.key, a.fingerprint, [3])


def test_what_it_is_follows_its_parts_and_their_order(stores: tuple[FeatureStore, ...]) -> None:
    a, _, c = stores
    kinds = [joined(parts) for parts in ([a, c], [c, a], [a, a], [a, c, c])]
    assert len({one.fingerprint for one in (*kinds, a, c)}) == 6
    assert len({one.key for one in (*kinds, a, c)}) == 6
    assert joined([a, c]).fingerprint == kinds[0].fingerprint


def test_an_image_that_one_lacks_is_named(stores: tuple[FeatureStore, ...]) -> None:
    a, b, _ = stores
    with pytest.raises(LikemindError, match=r"a has no features of 1 images \('eel'\): embed them"):
        joined([b, a])
    with pytest.raises(LikemindError, match=r"a \+ .*b has no features of 1 images \('eel'\)"):
        joined([a, b]).rows(["ant", "eel"])
    with pytest.raises(LikemindError, match="there are no features to join"):
        joined([])

"""Several layers at once, half precision, threads, and what is left out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError
from likemind.features import ahead
from likemind.features import embed as module
from likemind.features.ahead import default_workers
from likemind.features.embed import embed, embed_rows
from likemind.features.store import FeatureStore
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing

from .conftest import LAYERS

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("features.npy", "items.parquet")}


def test_each_layer_is_what_it_would_be_alone(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    stores = embed(pictures, small, out=tmp_path / "out", layers=LAYERS)
    assert list(stores) == LAYERS
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"pooled", "first-mean"}
    for layer, store in stores.items():
        alone = embed(pictures, load_backbone(small, layer=layer), out=tmp_path / f"alone-{layer}")
        assert files(store.path) == files(alone.path)
        assert (store.key, store.run["config"]["layer"]) == (alone.key, layer)
        assert FeatureStore.load(store.path, verify=True).ids == [f"{k:03d}.jpg" for k in range(10)]
    assert stores["first:mean"].features.shape == (10, 6)
    assert embed(pictures, small, out=tmp_path / "one").key == stores["pooled"].key


def test_one_forward_pass_serves_all(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    seen: list[int] = []
    small.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    embed(pictures, small, out=tmp_path / "out", layers=LAYERS)
    assert sum(seen) == 10
    embed(pictures, small, out=tmp_path / "out", layers=LAYERS[1:])
    assert sum(seen) == 10
    embed(pictures, load_backbone(small, layer="last"), out=tmp_path / "inner", layers=LAYERS)
    assert sum(seen) == 21  # one more for the width of "last"


def test_a_layer_may_be_added_later_and_another_is_left_alone(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    embed(pictures, small, out=tmp_path / "out", layers=["first:mean"])
    before = (tmp_path / "out/first-mean/run.json").read_bytes()
    added = embed(pictures, small, out=tmp_path / "out", layers=LAYERS)
    assert (tmp_path / "out/first-mean/run.json").read_bytes() == before
    whole = embed(pictures, small, out=tmp_path / "whole", layers=LAYERS)
    for layer in LAYERS:
        assert files(added[layer].path) == files(whole[layer].path)


def test_what_cannot_be_is_said_and_nothing_is_left(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    out = tmp_path / "out"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"layers": ["pooled", "third:mean"]}, "no layer 'third:mean'"),
        ({"layers": ["pooled", "first"]}, r"'first' has the shape .*: say how it is pooled"),
        ({"layers": []}, "no layer is named"),
        ({"layers": ["last", "last"]}, "name one twice"),
        ({"dtype": "float8"}, "dtype 'float8' is not known: choose float32 or float16"),
        ({"workers": 0}, "workers is 0: give 1 or more"),
    ]
    for change, said in wrong:
        with pytest.raises(LikemindError, match=said):
            embed(pictures, small, out=out, **change)
        assert not out.exists()
    embed(pictures, small, out=out)
    with pytest.raises(LikemindError, match="holds another run, and no folder for each layer"):
        embed(pictures, small, out=out, layers=LAYERS)
    embed(pictures, small, out=tmp_path / "many", layers=LAYERS)
    with pytest.raises(LikemindError, match="choose another --out"):
        embed(pictures, small, out=tmp_path / "many")


def test_half_precision_is_that_of_the_rows(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    whole = embed(pictures, small, out=tmp_path / "whole")
    half = embed(pictures, small, out=tmp_path / "half", dtype="float16")
    assert (half.features.dtype, whole.features.dtype) == (np.float16, np.float32)
    assert isinstance(half.features, np.memmap)
    np.testing.assert_array_equal(half.features, np.asarray(whole.features).astype(np.float16))
    assert half.rows(["003.jpg"]).dtype == np.float32
    assert "dtype" not in whole.run["config"]  # so that the keys of earlier runs stay
    with pytest.raises(LikemindError, match="--overwrite"):
        embed(pictures, small, out=tmp_path / "half")


def test_what_float16_cannot_hold_is_named(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    with torch.no_grad():
        small.module.last.bias[2] = 1e5
    with pytest.raises(LikemindError, match=r"'000\.jpg' are too large for float16: store them as float32"):
        embed(pictures, small, out=tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out.partial").exists()
    assert embed(pictures, small, out=tmp_path / "out").features.max() > 9e4


def test_unreadable_images_in_half_precision(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    (pictures / "004.jpg").write_bytes(b"no image")
    stores = embed(pictures, small, out=tmp_path / "out", layers=LAYERS, dtype="float16", skip_bad=True)
    for store in stores.values():
        assert store.ids == [f"{k:03d}.jpg" for k in range(10) if k != 4]
        assert np.isfinite(store.features).all()
        assert len(store.run["figures"]["left_out"]) == 1
    with pytest.raises(LikemindError, match=r"pooled was made without 1 images .*004\.jpg"):
        embed(pictures, small, out=tmp_path / "out", layers=LAYERS, dtype="float16")


@pytest.mark.parametrize("workers", [1, 2, 16, None])
def test_threads_change_no_byte(pictures: Path, tmp_path: Path, small: Backbone, workers: int | None) -> None:
    wanted = embed(pictures, small, out=tmp_path / "wanted", workers=3)
    assert files(embed(pictures, small, out=tmp_path / "out", workers=workers).path) == files(wanted.path)
    for position in (6, 7, 9):
        (pictures / f"{position:03d}.jpg").write_bytes(b"no image")
    with pytest.raises(LikemindError, match=r"006\.jpg is not an image"):  # the first, whichever thread is quicker
        embed_rows(open_images(pictures), range(10), small, workers=workers)


def test_threads_follow_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, threads in ((1, 1), (2, 1), (8, 7), (64, 16)):
        monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _, n=processors: set(range(n)), raising=False)
        assert default_workers() == threads


def test_alignets_preprocessing_by_name(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    found = embed(pictures, small, out=tmp_path / "out", preprocessing="alignet")
    wanted = embed(pictures, replace(small, preprocessing=Preprocessing.alignet(8)), out=tmp_path / "wanted")
    assert (found.key, files(found.path)) == (wanted.key, files(wanted.path))
    assert found.run["config"]["preprocessing"]["antialias"] is False
    with pytest.raises(LikemindError, match="--overwrite"):
        embed(pictures, small, out=tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf8_is_left_out_and_named(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    with open(os.fsencode(pictures) + b"/0\xe9.jpg", "wb") as file:  # noqa: PTH123
        file.write((pictures / "000.jpg").read_bytes())
    with pytest.raises(LikemindError, match=r"not UTF-8 \('0\\udce9\.jpg'\): rename the file, or pass --skip-bad"):
        embed(pictures, small, out=tmp_path / "out")
    store = embed(pictures, small, out=tmp_path / "out", skip_bad=True)
    assert len(store) == 10
    (said,) = json.loads((store.path / "run.json").read_text())["figures"]["left_out"]
    assert said.endswith(r"in holds a name that is not UTF-8 ('0\udce9.jpg'): rename the file")


def test_a_flipped_byte_is_refused_under_verify(pictures: Path, tmp_path: Path, small: Backbone) -> None:
    store = embed(pictures, small, out=tmp_path / "out")
    data = bytearray((store.path / "features.npy").read_bytes())
    data[-3] ^= 4
    (store.path / "features.npy").write_bytes(data)
    embed(pictures, small, out=tmp_path / "out")
    with pytest.raises(LikemindError, match=r"features\.npy is not the file that was written: make .* --overwrite"):
        embed(pictures, small, out=tmp_path / "out", verify=True)


@pytest.mark.parametrize("number", range(1, 8))
def test_what_is_joined_is_not_computed_again(
    pictures: Path, tmp_path: Path, small: Backbone, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Killed while the shards are cleared away, or later: a million images' work must not be lost to that."""
    wanted = embed(pictures, small, out=tmp_path / "wanted")
    calls = 0

    def unlink(self: Path, missing_ok: bool = False) -> None:
        nonlocal calls
        calls += self.suffix in (".f32", ".json") and self.name.startswith(("shard", "bad", "plan"))
        if calls == number:
            raise KeyboardInterrupt
        os.unlink(self) if self.exists() or not missing_ok else None  # noqa: PTH108

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            embed(pictures, small, out=tmp_path / "out")
    monkeypatch.setattr(module, "embed_layers", lambda *_, **__: pytest.fail("computed again"))
    assert files(embed(pictures, small, out=tmp_path / "out").path) == files(wanted.path)

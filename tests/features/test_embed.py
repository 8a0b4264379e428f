from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm.data
import torch
from PIL import Image

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.features import embed as module
from likemind.features.embed import embed, embed_rows, resolve_precision
from likemind.features.store import FeatureStore
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.backbones.base import Backbone


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (20 + seed % 7, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def photographs(folder: Path, n: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(n):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg(number))
    return folder


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("images"), 10)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "BATCH", 2)


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("features.npy", "items.parquet")}


def test_rows_are_those_of_plain_timm(images: Path, tmp_path: Path, backbone: Backbone) -> None:
    store = embed(images, backbone, out=tmp_path / "out")
    assert store.ids == [f"{n:03d}.jpg" for n in range(10)]
    assert store.features.shape == (10, backbone.dim)
    assert store.features.dtype == np.float32
    transform = timm.data.create_transform((3, 160, 160), is_training=False, interpolation="bicubic", crop_pct=0.875)
    for name, row in zip(store.ids, store.features, strict=True):
        with torch.inference_mode():
            expected = backbone.module(transform(Image.open(images / name).convert("RGB")).unsqueeze(0))[0]
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert store.run["figures"] == {"backbone_name": "test_vit", "images": 10, "dim": backbone.dim, "left_out": []}
    assert store.fingerprint == backbone.fingerprint
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"features.npy", "items.parquet", "run.json"}


@pytest.mark.usefixtures("small_shards")
def test_size_of_batch_and_shard_do_not_matter(
    images: Path, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = embed(images, backbone, out=tmp_path / "small")
    monkeypatch.setattr(module, "SHARD", 512)
    monkeypatch.setattr(module, "BATCH", 7)
    large = embed(images, backbone, out=tmp_path / "large")
    assert small.ids == large.ids
    np.testing.assert_allclose(small.features, large.features, rtol=1e-4, atol=1e-5)


def test_tar_and_parquet_give_the_same_rows(images: Path, tmp_path: Path, backbone: Backbone) -> None:
    subprocess.run(["tar", "-cf", str(tmp_path / "x.tar"), "--sort=name", "."], cwd=images, check=True)
    names = sorted(path.name for path in images.iterdir())
    data = [{"bytes": (images / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"id": names, "image": data}), tmp_path / "x.parquet", row_group_size=4)
    expected, _ = embed_rows(open_images(images), range(10), backbone)
    for path in (tmp_path / "x.tar", tmp_path / "x.parquet"):
        store = embed(path, backbone, out=tmp_path / f"{path.name}.out")
        np.testing.assert_array_equal(store.rows(names), expected)


def test_any_order_of_positions(images: Path, backbone: Backbone) -> None:
    rows, _ = embed_rows(open_images(images), range(10), backbone)
    some, bad = embed_rows(open_images(images), [7, 0, 7], backbone)
    np.testing.assert_allclose(some, rows[[7, 0, 7]], rtol=1e-4, atol=1e-5)
    assert bad == []


def test_the_same_is_skipped_and_another_refused(
    images: Path, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed(images, backbone, out=tmp_path / "out")
    monkeypatch.setattr(module, "_write_shards", lambda *_: pytest.fail("did the work again"))
    assert embed(images, backbone, out=tmp_path / "out").key == first.key
    changes: list[dict[str, Any]] = [
        {"backbone": replace(backbone, preprocessing=Preprocessing(size=160, antialias=False))},
        {"backbone": load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160))},
        {"precision": "bfloat16"},
        {"images": open_images(images).select(["001.jpg"])},
    ]
    for change in changes:
        with pytest.raises(LikemindError, match="--overwrite"):
            embed(**({"images": images, "backbone": backbone, "out": tmp_path / "out"} | change))


def test_a_bad_image_among_good_ones_is_named_and_nothing_is_left(tmp_path: Path, backbone: Backbone) -> None:
    folder = photographs(tmp_path / "in", 5)
    (folder / "003.jpg").write_bytes(jpeg(3)[:300])
    with pytest.raises(LikemindError, match=r"003\.jpg is damaged"):
        embed(folder, backbone, out=tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"in"}


@pytest.mark.usefixtures("small_shards")
def test_finished_shards_are_kept_when_a_later_image_is_bad(tmp_path: Path, backbone: Backbone) -> None:
    folder = photographs(tmp_path / "in", 6)
    (folder / "005.jpg").write_bytes(b"")
    with pytest.raises(LikemindError, match=r"005\.jpg is empty"):
        embed(folder, backbone, out=tmp_path / "out")
    assert (tmp_path / "out.partial" / "shard-000000000.f32").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_shards")
def test_skip_bad_counts_and_names(tmp_path: Path, backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    folder = photographs(tmp_path / "in", 9)
    expected, _ = embed_rows(open_images(folder), [n for n in range(9) if n not in (3, 8)], backbone)
    (folder / "003.jpg").write_bytes(jpeg(3)[:300])
    (folder / "008.jpg").write_text("a text, not a picture")
    store = embed(folder, backbone, out=tmp_path / "out", skip_bad=True)
    assert store.ids == [f"{n:03d}.jpg" for n in range(8) if n != 3]
    np.testing.assert_allclose(store.features, expected, rtol=1e-4, atol=1e-5)
    first, second = store.run["figures"]["left_out"]
    assert "003.jpg is damaged" in first
    assert "008.jpg is not an image of a known kind" in second
    assert "2 unreadable images" in caplog.text


@pytest.mark.usefixtures("small_shards")
def test_what_was_done_before_a_bad_image_serves_when_it_is_left_out(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "in", 6)
    (folder / "005.jpg").write_bytes(jpeg(5)[:300])
    with pytest.raises(LikemindError, match="pass --skip-bad"):
        embed(folder, backbone, out=tmp_path / "out")
    forward, seen = module.embed_layers, []
    monkeypatch.setattr(module, "embed_layers", lambda *a, **k: seen.append(list(a[1])) or forward(*a, **k))
    store = embed(folder, backbone, out=tmp_path / "out", skip_bad=True)
    assert store.ids == [f"{n:03d}.jpg" for n in range(5)]
    assert seen == [[4, 5]]
    with pytest.raises(LikemindError, match=r"made without 1 images .*005\.jpg is damaged.*: pass --skip-bad again"):
        embed(folder, backbone, out=tmp_path / "out")


def test_nothing_but_bad_images(tmp_path: Path, backbone: Backbone) -> None:
    folder = photographs(tmp_path / "in", 2)
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(LikemindError, match="holds no readable image"):
        embed(folder, backbone, out=tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_no_images_and_no_folder(tmp_path: Path, backbone: Backbone) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(LikemindError, match="holds no images"):
        embed(tmp_path / "in", backbone, out=tmp_path / "out")
    with pytest.raises(LikemindError, match="does not exist"):
        embed(tmp_path / "nowhere", backbone, out=tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"in"}


class Broken(torch.nn.Module):
    def __init__(self, value: float, width: int) -> None:
        super().__init__()
        self.value, self.width = value, width

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(len(pixels), self.width)
        rows[2] = self.value
        return rows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_features_that_are_not_finite_are_named_and_never_dropped(
    images: Path, tmp_path: Path, backbone: Backbone, value: float, skip_bad: bool
) -> None:
    with pytest.raises(LikemindError, match=r"'002\.jpg' is not finite"):
        embed(images, replace(backbone, module=Broken(value, 64)), out=tmp_path / "out", skip_bad=skip_bad)


def test_features_of_the_wrong_width_are_said(images: Path, tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(LikemindError, match=r"shape \(10, 32\)"):
        embed(images, replace(backbone, module=Broken(0.0, 32)), out=tmp_path / "out")


def test_precision(images: Path, backbone: Backbone) -> None:
    assert resolve_precision("auto") == ("bfloat16" if torch.cuda.is_available() else "float32")
    with pytest.raises(LikemindError, match="precision 'float8'"):
        resolve_precision("float8")
    with pytest.raises(LikemindError, match="engine 'slurm' is not known: choose 'local' or 'ray'"):
        embed(images, backbone, out="never", engine="slurm")  # type: ignore[arg-type]
    with pytest.raises(LikemindError, match="the address 'auto' is of use to the engine ray alone"):
        embed(images, backbone, out="never", address="auto")
    exact, _ = embed_rows(open_images(images), range(4), backbone)
    rounded, _ = embed_rows(open_images(images), range(4), backbone, bfloat16=True)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


DRIVER = textwrap.dedent("""
    import sys, time
    import torch
    torch.set_num_threads(1)
    from likemind.features import embed as module
    module.SHARD, module.BATCH = 4, 2
    real = module.embed_layers
    def told(images, positions, *args, **kwargs):
        print(positions[0], flush=True)
        time.sleep(float(sys.argv[4]))
        return real(images, positions, *args, **kwargs)
    module.embed_layers = told
    module.embed(sys.argv[1], sys.argv[2], out=sys.argv[3])
""")


def driver(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[int]:
    """Wait for the driver; return where the shards that it computed start."""
    told, _ = process.communicate()
    assert process.returncode == 0
    return [int(start) for start in told.split()]


def test_a_killed_run_continues_and_ends_in_the_same_bytes(images: Path, tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path / "backbone")
    out = tmp_path / "out"
    process = driver(images, tmp_path / "backbone", out, 2)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial/shard-*.f32")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(LikemindError, match=rf"another process is writing .*out \(process {process.pid}\): wait"):
        embed(images, load_backbone(tmp_path / "backbone"), out=out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = sorted(int(shard.stem.split("-")[1]) for shard in tmp_path.glob("out.partial/shard-*.f32"))
    assert not out.exists()
    assert finish(driver(images, tmp_path / "backbone", out, 0)) == [n for n in (0, 4, 8) if n not in done]
    assert finish(driver(images, tmp_path / "backbone", tmp_path / "whole", 0)) == [0, 4, 8]
    assert files(out) == files(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("number", range(1, 9))
def test_a_crash_while_joining_ends_in_the_same_bytes(
    images: Path, tmp_path: Path, backbone: Backbone, number: int
) -> None:
    from pathlib import Path as RealPath

    wanted = embed(images, backbone, out=tmp_path / "wanted")
    calls = 0

    def unlink(self: RealPath, missing_ok: bool = False) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        os.unlink(self) if self.exists() or not missing_ok else None  # noqa: PTH108

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RealPath, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            embed(images, backbone, out=tmp_path / "out")
    again = embed(images, backbone, out=tmp_path / "out")
    assert files(again.path) == files(wanted.path)


@pytest.mark.parametrize("free", [0, 4096, 8192, 12288, 16384, 24576, 32768])
def test_a_disk_that_is_really_full(
    small_disk: Callable[[str], Path], images: Path, tmp_path: Path, backbone: Backbone, free: int
) -> None:
    tiny_disk = small_disk("64k")
    wanted = embed(images, backbone, out=tmp_path / "wanted")
    space = os.statvfs(tiny_disk)
    (tiny_disk / "ballast").write_bytes(b"x" * max(0, space.f_bavail * space.f_frsize - free))
    failed = False
    try:
        embed(images, backbone, out=tiny_disk / "out")
    except LikemindError as error:
        failed = True
        assert "disk is full" in str(error)  # noqa: PT017
        assert not (tiny_disk / "out").exists()
    assert failed or free >= 16384
    (tiny_disk / "ballast").unlink()
    assert files(embed(images, backbone, out=tiny_disk / "out").path) == files(wanted.path)


def test_store(images: Path, tmp_path: Path, backbone: Backbone) -> None:
    out = tmp_path / "out"
    store = embed(images, backbone, out=out)
    assert FeatureStore.load(store) is store
    assert len(store) == 10
    np.testing.assert_array_equal(store.rows(["007.jpg", "001.jpg"]), store.features[[7, 1]])
    assert store.rows([]).shape == (0, backbone.dim)
    with pytest.raises(LikemindError, match=r"no features of 1 images \('zebra'\)"):
        store.rows(["001.jpg", "zebra"])
    data = bytearray((out / "features.npy").read_bytes())
    data[-1] ^= 1
    (out / "features.npy").write_bytes(data)
    FeatureStore.load(out)
    with pytest.raises(LikemindError, match=r"features\.npy is not the file"):
        FeatureStore.load(out, verify=True)
    mended = embed(images, backbone, out=out, overwrite=True, verify=True)
    assert np.isfinite(mended.features).all()
    header = b"\x00" * 128 + bytes(data[128:])
    (out / "features.npy").write_bytes(header)
    with pytest.raises(LikemindError, match=r"features\.npy is damaged"):
        FeatureStore.load(out)
    with pytest.raises(LikemindError, match="not an output of `likemind embed`"):
        FeatureStore.load(tmp_path)
    assert read_table(out / "items.parquet").column_names == ["id"]

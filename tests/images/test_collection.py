from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from likemind.errors import LikemindError
from likemind.images.collection import ImageCollection, open_images

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"b/z.png": (1, 0, 0), "a.png": (2, 0, 0), "b/a.PNG": (3, 0, 0), "b-c.png": (4, 0, 0)}


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


def folder(where: Path) -> Path:
    for name, colour in COLOURS.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(png(colour))
    (where / "notes.txt").write_text("not an image")
    (where / "._a.png").write_text("what macOS leaves behind")
    return where


def tar(path: Path, prefix: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, colour in COLOURS.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(png(colour))
            file.addfile(member, io.BytesIO(png(colour)))
        for other in ("notes.txt", "b/._z.png"):
            file.addfile(tarfile.TarInfo(prefix + other), io.BytesIO())
    return path


def parquet(path: Path, kind: str) -> Path:
    data = [png(colour) for colour in COLOURS.values()]
    column = pa.array(data) if kind == "bytes" else pa.array([{"bytes": d, "path": None} for d in data])
    pq.write_table(pa.table({"id": list(COLOURS), "image": column, "label": [0] * 4}), path, row_group_size=3)
    return path


def check(images: ImageCollection) -> None:
    """Every image is found by its id, in any order."""
    assert sorted(images.ids) == sorted(COLOURS)
    for position in [3, 0, 2, 1, 3]:
        assert images.read(position).getpixel((0, 0)) == COLOURS[images.ids[position]]


def test_a_folder_in_the_order_of_its_ids(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path))
    assert images.ids == ["a.png", "b-c.png", "b/a.PNG", "b/z.png"] == sorted(COLOURS)
    assert len(images) == 4
    check(images)
    assert open_images(images) is images


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_in_the_order_of_the_file(tmp_path: Path, prefix: str) -> None:
    images = open_images(tar(tmp_path / "x.tar", prefix))
    assert images.ids == list(COLOURS)
    check(images)


def test_a_tar_of_the_systems_own(tmp_path: Path) -> None:
    folder(tmp_path / "in")
    subprocess.run(["tar", "-cf", str(tmp_path / "x.tar"), "."], cwd=tmp_path / "in", check=True)
    check(open_images(tmp_path / "x.tar"))


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_parquet(tmp_path: Path, kind: str) -> None:
    images = open_images(parquet(tmp_path / "x.parquet", kind))
    assert images.ids == list(COLOURS)
    check(images)


def test_select_and_positions(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path))
    some = images.select(["b/z.png", "a.png"])
    assert some.ids == ["b/z.png", "a.png"]
    assert some.read(0).getpixel((0, 0)) == (1, 0, 0)
    assert some.select(["a.png"]).read(0).getpixel((0, 0)) == (2, 0, 0)
    assert images.positions(["b/z.png", "a.png"]) == [3, 0]
    with pytest.raises(LikemindError, match=r"lacks 6 .*'n0', 'n1', 'n2', 'n3', 'n4', …"):
        images.select([f"n{n}" for n in range(6)])


def test_the_key_follows_ids_and_bytes(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path))
    keys = [images.key(), images.select(["a.png"]).key(), images.select(["b-c.png"]).key()]
    (tmp_path / "a.png").write_bytes(png((9, 9, 9)) + b" ")
    keys.append(open_images(tmp_path).key())
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    keys.append(open_images(tmp_path).key())
    assert len(set(keys)) == len(keys)
    assert open_images(tmp_path).key() == open_images(tmp_path).key(verify=True)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="does not exist"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(LikemindError, match="holds no images"):
        open_images(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(LikemindError, match="neither a folder nor"):
        open_images(tmp_path / "x.zip")
    for content in (b"", b"no tar at all" * 100):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(LikemindError, match="not an uncompressed tar"):
            open_images(tmp_path / "x.tar")
    with pytest.raises(LikemindError, match="not an uncompressed tar"):
        open_images(tar(tmp_path / "x.tar", mode="w:gz"))
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(LikemindError, match="not a Parquet file"):
        open_images(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"name": ["a"], "image": [b"x"]}, r"needs the columns 'id' and 'image' \(it has 'name', 'image'\)"),
        ({"id": ["a", "b", "a"], "image": [b"", b"", b""]}, 'image id "a" twice'),
        ({"id": ["a", None], "image": [b"", b""]}, r"row 1 .*has no id"),
        ({"id": [], "image": []}, "holds no images"),
    ],
)
def test_columns_that_do_not_do(tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(LikemindError, match=said):
        open_images(tmp_path / "x.parquet")


@pytest.mark.parametrize("hole", [None, {"bytes": None, "path": "elsewhere.png"}])
def test_a_row_without_bytes_is_named(tmp_path: Path, hole: object) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"id": ["a", "b"], "image": pa.array([{"bytes": png((1, 2, 3)), "path": None}, hole], kind)})
    pq.write_table(table, tmp_path / "x.parquet")
    images = open_images(tmp_path / "x.parquet")
    assert images.read(0).getpixel((0, 0)) == (1, 2, 3)
    with pytest.raises(LikemindError, match=r"row 1 \('b'\) holds no image bytes"):
        images.read(1)


def test_a_truncated_tar_and_a_vanished_file_are_named(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path / "f"))
    (tmp_path / "f" / "a.png").unlink()
    with pytest.raises(LikemindError, match=r"a\.png cannot be read"):
        images.read(0)
    whole = tar(tmp_path / "x.tar").read_bytes()
    cut = open_images(tmp_path / "x.tar")
    (tmp_path / "x.tar").write_bytes(whole[: 512 + 20])
    with pytest.raises(LikemindError, match=r"b/z\.png"):
        cut.read(0)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf8_is_said(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(png((0, 0, 0)))
    with pytest.raises(LikemindError, match="not UTF-8"):
        open_images(tmp_path)


def test_many_threads_read_the_right_images(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = open_images(parquet(tmp_path / "x.parquet", "struct"))
    positions = np.random.default_rng(0).integers(0, 4, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda p: images.read(p).getpixel((0, 0)), positions))
    assert found == [COLOURS[images.ids[p]] for p in positions]

"""The same pictures from every kind of source: the same ids where the layout allows it, and the same features."""

from __future__ import annotations

import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.images import tars
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDS = sorted(
    [f"train/n{wnid:08d}/n{wnid:08d}_{k}.JPEG" for wnid in (1440764, 2102040) for k in range(4)]
    + ["b-c.png", "b/a.webp"]
)


def picture(name: str) -> bytes:
    noise = np.random.default_rng(len(name) * 131 + sum(name.encode())).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, {"png": "PNG", "webp": "WEBP"}.get(name.rpartition(".")[2], "JPEG"))
    return buffer.getvalue()


PICTURES = {name: picture(name) for name in IDS}


def folder(where: Path, pictures: dict[str, bytes] = PICTURES) -> Path:
    for name, data in pictures.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(data)
    return where


def tar(path: Path, pictures: dict[str, bytes] = PICTURES) -> Path:
    """Write a WebDataset's shard: members of a key stand together, whatever their extensions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in pictures.items():
            key = name.rpartition(".")[0]
            for member, content in ((name, data), (f"{key}.json", b"{}"), (f"{key}.cls", b"7"), (f"{key}.txt", b"cat")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def split(n: int) -> list[dict[str, bytes]]:
    parts = np.array_split(np.array(IDS, dtype=object), n)
    return [{name: PICTURES[name] for name in part} for part in parts]


def tar_shards(where: Path) -> Path:
    for number, part in enumerate(split(3)):
        tar(where / f"shard-{number:03d}.tar", part)
    (where / "README.md").write_text("not an image")
    return where


def structs(pictures: dict[str, bytes]) -> pa.Array:
    return pa.array([{"bytes": data, "path": name} for name, data in pictures.items()])


def parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": IDS, "image": list(PICTURES.values())}), path, row_group_size=3, compression="none")
    return path


def parquet_of_the_hub(where: Path) -> Path:
    """Write what a data set on the Hub looks like: parts, structs, and no column of ids."""
    where.mkdir(parents=True)
    for number, part in enumerate(split(2)):
        table = pa.table({"image": structs(part), "label": [0] * len(part)})
        pq.write_table(table, where / f"train-{number:05d}-of-00002.parquet", row_group_size=2, compression="none")
    return where


def saved(where: Path, tables: list[pa.Table] | None = None) -> Path:
    """Write what ``datasets.Dataset.save_to_disk`` does (its version 5.2), in record batches of two rows."""
    where.mkdir(parents=True)
    tables = tables or [pa.table({"image": structs(part), "label": [0] * len(part)}) for part in split(2)]
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(where / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat"], "_type": "ClassLabel"}}
    (where / "dataset_info.json").write_text(json.dumps({"features": features, "splits": {}}))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train", "_format_type": None}
    (where / "state.json").write_text(json.dumps(state))
    return where


SOURCES: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "tar": lambda where: tar(where / "in.tar"),
    "tar shards": tar_shards,
    "Parquet": lambda where: parquet(where / "in.parquet"),
    "Parquet of the Hub": lambda where: parquet_of_the_hub(where / "data"),
    "saved data set": lambda where: saved(where / "saved"),
}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], bytes]]:
    torch.manual_seed(0)
    backbone = load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160))
    found = {}
    for name, make in SOURCES.items():
        where = tmp_path_factory.mktemp("source")
        store = embed(make(where / "in"), backbone, out=where / "out")
        found[name] = (store.ids, (store.path / "features.npy").read_bytes())
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_ids_and_the_same_bytes(name: str, features: dict[str, Any]) -> None:
    ids, data = features[name]
    assert ids == IDS
    assert data == features["folder"][1]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_read_in_any_order_by_many_threads(name: str, tmp_path: Path) -> None:
    images, plain = open_images(SOURCES[name](tmp_path / "in")), open_images(folder(tmp_path / "plain"))
    expected = [np.asarray(plain.read(position)) for position in range(len(IDS))]
    positions = np.random.default_rng(0).integers(0, len(IDS), 60).tolist()
    with ThreadPoolExecutor(8) as pool:
        for position, found in zip(positions, pool.map(images.read, positions), strict=True):
            np.testing.assert_array_equal(np.asarray(found), expected[position])
    assert images.key() == open_images(images.path).key(verify=True)


@pytest.mark.parametrize("name", SOURCES)
def test_a_byte_that_changes_changes_the_key(name: str, tmp_path: Path) -> None:
    path = SOURCES[name](tmp_path / "in")
    key = open_images(path).key()
    some = PICTURES["b-c.png"][60:70]
    (file,) = (f for f in [path, *path.rglob("*")] if f.is_file() and some in f.read_bytes())
    file.write_bytes(file.read_bytes().replace(some, bytes(10)))
    assert open_images(path).key() != key


# --- tars


def test_two_shards_with_members_of_one_name_precede_ids_with_the_shards(tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / f"sub/{number}.tar", {f"000{k}.jpg": PICTURES[IDS[2 * number + k]] for k in range(2)})
    images = open_images(tmp_path)
    assert images.ids == [f"sub/{n}.tar/000{k}.jpg" for n in range(2) for k in range(2)]
    assert np.asarray(images.read(3)).tobytes() == np.asarray(open_images(folder(tmp_path / "f")).read(3)).tobytes()


def test_a_name_twice_in_one_shard_is_still_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    tar(tmp_path / "y.tar", {"b.png": b""})
    with pytest.raises(LikemindError, match=r'image id "a\.png" twice'):
        open_images(tmp_path)


def test_every_image_of_a_key_is_one(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", {"a/1.jpg": b"", "a/1.mask.png": b"", "a/2.JPEG": b""})
    assert open_images(tmp_path).ids == ["a/1.jpg", "a/1.mask.png", "a/2.JPEG"]


def test_tars_beside_images_are_something_else(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar")
    folder(tmp_path, {"own.png": PICTURES["b-c.png"]})
    assert open_images(tmp_path).ids == ["own.png"]


def test_the_index_is_remembered_until_the_tar_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "cache"))
    path, scans, scan = tar(tmp_path / "x.tar"), [], tars._scan
    monkeypatch.setattr(tars, "_scan", lambda path: scans.append(path) or scan(path))
    first = open_images(path)
    again = open_images(path)
    assert scans == [path]
    assert again.ids == first.ids == IDS
    assert [again.read(k).tobytes() for k in range(3)] == [first.read(k).tobytes() for k in range(3)]
    tar(path, dict(list(PICTURES.items())[:4]))
    assert open_images(path).ids == IDS[:4]
    assert scans == [path, path]
    (file,) = (tmp_path / "cache/tars").iterdir()
    for damage in (b"", b"nonsense", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        assert open_images(path).ids == IDS[:4]
    assert len(scans) == 5


def test_verify_sees_a_tar_that_changed_under_the_same_size_and_time(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.png": PICTURES["b-c.png"], "b.png": b"?" * 100})
    before = path.stat()
    open_images(path)
    tar(path, {"b.png": b"?" * 100, "a.png": PICTURES["b-c.png"]})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    stale = open_images(path)
    assert stale.ids == ["a.png", "b.png"]
    with pytest.raises(LikemindError, match="its size and time were not: run the same command again"):
        stale.key(verify=True)
    images = open_images(path)
    assert images.ids == ["b.png", "a.png"]
    images.key(verify=True)
    assert images.read(1).size == (12, 9)


# --- tables


def test_a_folder_of_both_is_refused(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar")
    parquet(tmp_path / "x.parquet")
    with pytest.raises(LikemindError, match="point at a folder of one kind"):
        open_images(tmp_path)


def test_parts_of_other_columns_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "image": structs({"y": b""})}), tmp_path / "b.parquet")
    with pytest.raises(LikemindError, match=r"b\.parquet has other columns than .*a\.parquet"):
        open_images(tmp_path)


@pytest.mark.parametrize("paths", [[None, None], ["a.png", None], ["same.png", "same.png"], ["a.png", ""]])
def test_rows_are_counted_where_paths_are_no_ids(tmp_path: Path, paths: list[str | None]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": PICTURES["b-c.png"], "path": path} for path in paths], kind)
    table = pa.table({"img": column, "label": [0, 1]})
    pq.write_table(table, tmp_path / "x.parquet")
    for place in (tmp_path / "x.parquet", saved(tmp_path / "saved", [table])):
        images = open_images(place)
        assert images.ids == ["0", "1"]
        assert images.read(1).size == (12, 9)


def test_webdatasets_key_is_an_id(tmp_path: Path) -> None:
    table = pa.table({"__key__": ["k1", "k2"], "image": structs(dict(list(PICTURES.items())[:2]))})
    pq.write_table(table, tmp_path / "x.parquet")
    assert open_images(tmp_path).ids == open_images(saved(tmp_path / "saved", [table])).ids == ["k1", "k2"]


def test_a_saved_row_without_bytes_is_named(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": PICTURES["b-c.png"], "path": "a"}, {"bytes": None, "path": "/etc/passwd"}, None], kind)
    images = open_images(saved(tmp_path / "saved", [pa.table({"image": rows})]))
    for position in (1, 2):
        with pytest.raises(LikemindError, match=rf"row {position} \('{position}'\) holds no image bytes"):
            images.read(position)


def test_a_saved_data_set_of_splits_says_where_to_point(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    saved(tmp_path / "train")
    with pytest.raises(LikemindError, match="holds the splits 'train', 'test': point at the folder of one"):
        open_images(tmp_path)
    assert open_images(tmp_path / "train").ids == IDS


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "gone.arrow", "."])
def test_a_state_that_leads_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    place = saved(tmp_path / "saved")
    (tmp_path / "x.arrow").write_bytes(b"")
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(LikemindError, match=r"state\.json names .*which .*saved does not hold"):
        open_images(place)


def test_files_of_these_names_that_are_something_else(tmp_path: Path) -> None:
    folder(tmp_path, {"a.png": PICTURES["b-c.png"]})
    (tmp_path / "dataset_info.json").write_text("{}")
    for state in ("{}", '{"_data_files": 3}', "[]"):
        (tmp_path / "state.json").write_text(state)
        assert open_images(tmp_path).ids == ["a.png"]


def test_a_stream_that_is_cut_off_anywhere_is_named(tmp_path: Path) -> None:
    place = saved(tmp_path / "saved")
    file = place / "data-00001-of-00002.arrow"
    data = file.read_bytes()
    for size in (*range(0, len(data), 64), len(data) - 8, len(data) - 1):
        check_cut(place, file, data[:size])


def check_cut(place: Path, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(LikemindError, match=r"data-00001-of-00002\.arrow is (not an Arrow stream|cut off)"):
        open_images(place)


def test_offsets_that_lead_beyond_the_file_are_seen(tmp_path: Path) -> None:
    place = saved(tmp_path / "saved", [pa.table({"image": structs(PICTURES)})])
    (file,) = place.glob("*.arrow")
    sizes = np.cumsum([0, *map(len, list(PICTURES.values())[:2])]).astype("<i4").tobytes()
    data = file.read_bytes()
    assert sizes in data
    wild = np.array([0, 1 << 30, (1 << 30) + 7], dtype="<i4").tobytes()
    file.write_bytes(data.replace(sizes, wild))
    with pytest.raises(LikemindError, match="saved is damaged"):
        open_images(place)

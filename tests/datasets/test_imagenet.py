"""ImageNet and its kin from stand-ins in the published layouts, and every way in which a copy can be wrong."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from PIL import Image

from likemind.datasets.imagenet import (
    imagenet,
    imagenet_a,
    imagenet_classes,
    imagenet_r,
    imagenet_sketch,
    imagenet_v2,
    tiny_imagenet,
)
from likemind.datasets.labelled import by_folder, from_table, numbers
from likemind.errors import LikemindError
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KNOWN = {wnid: wnid for wnid in ("n01", "n02", "n03")}


def photographs(folder: Path, names: Iterable[str], each: int = 1) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.new("RGB", (9, 8), (number % 256, k, 0)).save(folder / name / f"{k}.JPEG")
    return folder


def test_the_class_lists() -> None:
    everything = imagenet_classes()
    assert len(everything) == len(set(everything)) == 1000
    assert list(everything) == sorted(everything)
    for part in ("imagenet_a", "imagenet_r"):
        some = imagenet_classes(part)  # type: ignore[arg-type]
        assert len(some) == 200
        assert set(some) < set(everything)
        assert list(some) == sorted(some)
    assert everything.index(imagenet_classes("imagenet_a")[0]) == 6
    assert everything.index(imagenet_classes("imagenet_a")[199]) == 988
    assert [everything.index(wnid) for wnid in imagenet_classes("imagenet_r")[:8]] == [1, 2, 4, 6, 8, 9, 11, 13]


def test_the_class_numbers_are_the_hierarchys(shared_data: Path) -> None:
    import json

    rows = json.loads((shared_data / "breeds" / "dataset_class_info.json").read_text())
    assert tuple(wnid for _, wnid, _ in rows) == imagenet_classes()


def test_imagenet_as_published(tmp_path: Path) -> None:
    photographs(tmp_path / "train", imagenet_classes(), each=2)
    photographs(tmp_path / "val", imagenet_classes())
    train, val = imagenet(tmp_path, "train"), imagenet(tmp_path, "val")
    assert (len(train), len(val)) == (2000, 1000)
    assert set(train.counts().values()) == {2}
    assert train.images.ids[0] == "n01440764/0.JPEG"
    assert train.classes[0] == "n01440764"
    assert len(imagenet_sketch(tmp_path / "val")) == 1000
    some = val.of(imagenet_classes("imagenet_a"))
    assert some.classes == list(imagenet_classes("imagenet_a"))


@pytest.mark.parametrize(("part", "read"), [("imagenet_a", imagenet_a), ("imagenet_r", imagenet_r)])
def test_the_two_hundred(part: str, read: object, tmp_path: Path) -> None:
    photographs(tmp_path / "imagenet-x", imagenet_classes(part))  # type: ignore[arg-type]
    (tmp_path / "imagenet-x" / "README.txt").write_text("as the archive has it")
    assert read(tmp_path).classes == list(imagenet_classes(part))  # type: ignore[operator,arg-type]
    shutil.rmtree(tmp_path / "imagenet-x" / imagenet_classes(part)[5])  # type: ignore[arg-type]
    with pytest.raises(LikemindError, match=r"of the 200 classes of ImageNet-[AR], 1 have no folder \('n\d+'\): add"):
        read(tmp_path)  # type: ignore[operator]


def test_numeric_folders_are_numbers_and_not_texts(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    found = imagenet_v2(tmp_path)
    of = dict(zip(found.images.ids, found.classes, strict=True))
    classes = imagenet_classes()
    assert of["2/0.JPEG"] == classes[2]
    assert of["10/0.JPEG"] == classes[10]
    assert of["999/0.JPEG"] == classes[999]
    by_text = sorted(map(str, range(1000)))
    assert classes[by_text.index("10")] != of["10/0.JPEG"]
    (folder / "10").rename(folder / "010")
    with pytest.raises(LikemindError, match=r"1 folders that are no class of ImageNet-V2 \('010'\)"):
        imagenet_v2(tmp_path)


def test_a_flat_val_is_named(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(LikemindError, match="sort them into a folder for each class"):
        imagenet(tmp_path, "val")
    with pytest.raises(LikemindError, match="train is no folder: put ImageNet there"):
        imagenet(tmp_path, "train")


def test_missing_empty_and_strange_folders_are_counted_and_named(tmp_path: Path) -> None:
    photographs(tmp_path, ["n01"])
    (tmp_path / "n02").mkdir()
    with pytest.raises(
        LikemindError, match=r"of the 3 classes of X, 1 have no folder \('n03'\) and 1 have an empty one \('n02'\): add"
    ):
        by_folder(tmp_path, KNOWN, what="X")
    photographs(tmp_path, ["n03", "misc"])
    with pytest.raises(LikemindError, match=r"1 folders that are no class of X \('misc'\)"):
        by_folder(tmp_path, KNOWN, what="X")
    shutil.rmtree(tmp_path / "misc")
    Image.new("RGB", (8, 8)).save(tmp_path / "n02" / "0.png")
    assert len(by_folder(tmp_path, KNOWN, what="X")) == 3
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(LikemindError, match=r"1 photographs in no class's folder \('loose\.png'\)"):
        by_folder(tmp_path, KNOWN, what="X")


def test_empty_folders_all_over(tmp_path: Path) -> None:
    for name in KNOWN:
        (tmp_path / name).mkdir()
    with pytest.raises(LikemindError, match="holds no images"):
        by_folder(tmp_path, KNOWN, what="X")
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(LikemindError, match="holds no images"):
        by_folder(empty, KNOWN, what="X")


def test_links_to_folders_are_no_folders(tmp_path: Path) -> None:
    photographs(tmp_path / "real", ["n01"])
    photographs(tmp_path / "used", ["n02", "n03"])
    (tmp_path / "used" / "n01").symlink_to(tmp_path / "real" / "n01")
    with pytest.raises(LikemindError, match=r"1 have no folder \('n01'\)"):
        by_folder(tmp_path / "used", KNOWN, what="X")


def tiny(folder: Path) -> Path:
    wnids = ["n01", "n02"]
    folder.mkdir()
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    photographs(folder / "train", [f"{wnid}/images" for wnid in wnids], each=3)
    photographs(folder / "val", ["images"], each=2)
    (folder / "val" / "val_annotations.txt").write_text("0.JPEG\tn02\t0\t0\t9\t9\n1.JPEG\tn01\t0\t0\t9\t9\n")
    return folder


def test_tiny_imagenet_as_published(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "tiny-imagenet-200")
    assert tiny_imagenet(folder, "train").counts() == {"n01": 3, "n02": 3}
    assert tiny_imagenet(folder, "val").classes == ["n02", "n01"]
    (folder / "val" / "val_annotations.txt").write_text("0.JPEG\tn09\t0\t0\t9\t9")
    with pytest.raises(LikemindError, match="gives 2 of 2 photographs no class"):
        tiny_imagenet(folder, "val")
    (folder / "wnids.txt").unlink()
    with pytest.raises(LikemindError, match=r"wnids\.txt does not exist"):
        tiny_imagenet(folder, "train")


def test_some_of_them(tmp_path: Path) -> None:
    found = by_folder(photographs(tmp_path, KNOWN, each=5), KNOWN, what="X")
    two = found.at_most(2)
    assert two.counts() == {"n01": 2, "n02": 2, "n03": 2}
    assert two.images.ids == found.at_most(2).images.ids != found.at_most(2, seed=1).images.ids
    assert found.of(["n03", "n01"]).counts() == {"n01": 5, "n03": 5}
    assert found.of(["n03"]).named({"n03": "all"}) == ["all"] * 5
    with pytest.raises(LikemindError, match=r"no photographs of 1 of the 2 classes that are needed \('n09'\)"):
        found.of(["n01", "n09"])


def test_from_a_table(tmp_path: Path) -> None:
    buffer = photographs(tmp_path / "p", ["a"]) / "a" / "0.JPEG"
    rows = [
        {"id": f"{wnid}-{split}", "wnid": wnid, "split": split, "image": buffer.read_bytes()}
        for wnid in ("n02", "n01", None)
        for split in ("train", "val")
    ]
    path = tmp_path / "t.parquet"
    write_table(path, pa.Table.from_pylist(rows))
    assert from_table(path, "wnid").classes == ["n02", "n02", "n01", "n01"]
    val = from_table(path, "wnid", lambda row: row["split"] == "val")
    assert val.images.ids == ["n02-val", "n01-val"]
    assert val.images.read(0).size == (9, 8)
    with pytest.raises(LikemindError, match="has no column class_name"):
        from_table(path, "class_name")
    with pytest.raises(LikemindError, match="holds no photographs that are wanted"):
        from_table(path, "wnid", lambda _: False)
    with pytest.raises(LikemindError, match="does not exist"):
        from_table(tmp_path / "none.parquet", "wnid")
    path.write_bytes(b"PAR1")
    with pytest.raises(LikemindError, match="is not a readable Parquet file"):
        from_table(path, "wnid")


def test_numbers_of_classes() -> None:
    label, names = numbers(["b", "a", "b"])
    assert (label.tolist(), names) == ([1, 0, 1], ["a", "b"])

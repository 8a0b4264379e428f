from __future__ import annotations

import csv
import gzip
import io
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from public_files import ANSWERS, CONCEPTS, photograph, published, vice_rows

from likemind.datasets import pack
from likemind.datasets.download import Server
from likemind.datasets.photographs import (
    LICENCES,
    Photographs,
    check_photographs,
    fetch_photographs,
    open_photographs,
    read_concepts,
)
from likemind.errors import LikemindError
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from public_files import PublicServer

NOWHERE = Server("http://127.0.0.1:9", tries=1)
TABLES = files("likemind.datasets") / "tables"


def columns(path: Path) -> dict[str, list[object]]:
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names if name != "image"}


def picture(path: Path, row: int) -> Image.Image:
    image = Image.open(io.BytesIO(pq.read_table(path)["image"][row].as_py()))
    image.load()
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """The pack of the made-up files, made without a server: they are there by hand."""
    cache = tmp_path_factory.mktemp("cache")
    sources, contents = published()
    for source, content in zip(sources, contents, strict=True):
        path = cache / "photographs" / "raw" / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return fetch_photographs(cache, sources=sources, server=NOWHERE)


@pytest.fixture
def folder(made: Photographs, tmp_path: Path) -> Path:
    """A copy of that pack, to spoil."""
    return Path(shutil.copytree(made.concepts.parent.parent, tmp_path / "data"))


def test_fetched_made_and_found_again(server: PublicServer, tmp_path: Path, made: Photographs) -> None:
    sources, contents = published()
    server.offer(sources, contents)
    found = fetch_photographs(tmp_path, sources=sources, server=server.settings())
    assert sorted(server.asked) == sorted(source.name for source in sources)
    assert found.imagenet == tmp_path / "photographs" / "pack" / "photos" / "imagenet_sample.parquet"
    assert found.tiny is None
    assert found.imagenet.read_bytes() == made.imagenet.read_bytes()
    server.asked.clear()
    assert fetch_photographs(tmp_path, sources=sources, server=server.settings()) == found
    shutil.rmtree(tmp_path / "photographs" / "raw")
    assert fetch_photographs(tmp_path, sources=sources, server=NOWHERE) == found
    assert server.asked == []


def test_a_damaged_pack_is_made_again_from_what_was_fetched(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = published()
    server.offer(sources, contents)
    found = fetch_photographs(tmp_path, sources=sources, server=server.settings())
    before = found.caltech.read_bytes()
    found.caltech.write_bytes(before[:-1] + b"?")
    assert fetch_photographs(tmp_path, sources=sources, server=NOWHERE).caltech.read_bytes() == before


def test_a_failure_leaves_what_was_fetched_and_no_pack(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = published()
    server.offer(sources, contents)
    server.faults[sources[-1].name] = ["corrupt"]
    with pytest.raises(LikemindError, match="has other bytes than expected"):
        fetch_photographs(tmp_path, sources=sources, server=server.settings())
    assert [path.name for path in (tmp_path / "photographs").iterdir()] == ["raw"]
    fetch_photographs(tmp_path, sources=sources, server=server.settings())
    assert server.asked.count(sources[-1].name) == 2


def test_without_a_folder_the_cache_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    caches = []
    monkeypatch.setattr("likemind.datasets.photographs.fetch_photographs", caches.append)
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "usual"))
    open_photographs()
    open_photographs(cache=str(tmp_path / "other"))
    assert caches == [tmp_path / "usual", tmp_path / "other"]


def test_concepts_keep_their_order(made: Photographs) -> None:
    concepts = read_concepts(made.concepts)
    assert [concept["uniqueID"] for concept in concepts] == list(CONCEPTS)
    assert b"\r" not in made.concepts.read_bytes()
    assert concepts[1]["word"] == "camera lens"
    assert concepts[1]["all_bottom_up_categories"] == "toy, tool"
    assert concepts[3]["wordnet_id"] == ""
    assert [concepts[row]["reference_image"] for row in (0, 4)] == ["goldfish_01b.jpg", "face_01s.jpg"]


def test_rows_by_name_become_rows_by_concept(made: Photographs) -> None:
    np.testing.assert_array_equal(np.load(made.embedding), vice_rows())
    assert np.load(made.embedding).dtype == np.float32
    rows = np.load(made.rdm_rows)
    assert [CONCEPTS[row] for row in rows] == ["camera1", "ice", "face"]
    assert rows.dtype == np.int16


def test_human_data_keep_their_numbers(made: Photographs) -> None:
    answers, rdm = np.load(made.human_triplets), np.load(made.rdm)
    assert answers.tolist() == ANSWERS
    assert answers.dtype == np.int16
    assert rdm.tolist() == [[0, 0.5, 0.9], [0.5, 0, 0.25], [0.9, 0.25, 0]]
    assert rdm.dtype == np.float64


def test_imagenet_rows(made: Photographs) -> None:
    assert columns(made.imagenet) == {
        "id": ["n01443537_goldfish", "n99999998_crane", "n99999999_crane"],
        "wnid": ["n01443537", "n99999998", "n99999999"],
        "class_name": ["goldfish, Carassius auratus", "crane", "crane"],
        "things_id": ["goldfish", None, None],
    }


def test_caltech_rows(made: Photographs) -> None:
    found = columns(made.caltech)
    assert found["id"][:2] == ["Faces/image_0000", "Faces/image_0001"]
    assert found["class_name"] == ["Faces"] * 10 + ["yin_yang"] * 3
    assert found["things_id"] == ["face"] * 10 + [None] * 3
    assert [found["split"][:10].count("train"), found["split"][10:].count("train")] == [7, 2]
    assert set(found["split"]) == {"train", "test"}


def test_photographs_have_their_shorter_side(made: Photographs) -> None:
    pictures = [picture(made.imagenet, row) for row in range(3)]
    assert [image.size for image in pictures] == [(341, 256), (378, 256), (256, 300)]
    assert {(image.mode, image.format) for image in pictures} == {("RGB", "JPEG")}
    assert min(picture(made.caltech, 4).size) == 160


def test_exif_data_are_dropped_and_not_followed() -> None:
    turned = Image.open(io.BytesIO(pack.shrink(photograph(40, 30, orientation=6), 20, 90)))
    plain = Image.open(io.BytesIO(pack.shrink(photograph(40, 30), 20, 90)))
    assert turned.size == (27, 20)
    assert not turned.getexif()
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(plain))


def test_alphabetical_order_is_undone() -> None:
    names = ["hot_tub_01b.jpg", "hot-air_balloon_01b.jpg", "ice_01b.jpg", "ice-cream_cone_01b.jpg"]
    order = pack.alphabetical(names)
    assert [names[row] for row in order] == sorted(names)
    np.testing.assert_array_equal(pack.reorder(np.array(sorted(names)), order), names)


def test_licences_name_only_what_is_there(folder: Path) -> None:
    assert set(LICENCES) - set(check_photographs(folder).licences) == {"Tiny-ImageNet photographs"}
    images = pa.array([b"x"], pa.binary())
    row = {"id": ["val_1"], "wnid": ["n0"], "class_name": ["c"], "things_id": ["ice"], "split": ["val"]}
    tiny = folder / "photos" / "tiny_imagenet.parquet"
    write_table(tiny, pa.table(row | {"image": images}))
    found = open_photographs(folder)
    assert (found.tiny, found.licences) == (tiny, LICENCES)


@pytest.mark.parametrize(
    "name",
    [
        "photos/imagenet_sample.parquet",
        "photos/caltech101.parquet",
        "things/concepts.tsv",
        "things/vice_embedding.npy",
        "things/human_triplets_2171.npy",
        "things/rdm48.npy",
        "things/rdm48_rows.npy",
    ],
)
def test_a_missing_or_spoilt_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe not it")
    with pytest.raises(LikemindError, match="is not the file that is meant") as caught:
        open_photographs(folder)
    assert str(caught.value).startswith(str(folder / name))
    (folder / name).unlink()
    with pytest.raises(LikemindError, match="does not exist: put it there, pass another --data-dir") as caught:
        open_photographs(folder)
    assert str(caught.value).startswith(str(folder / name))


def spoil_concepts(change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "things" / "concepts.tsv"
        path.write_text(change(path.read_text()))

    return spoil


def array(name: str, value: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "things" / name, value)


def table(name: str, **changes: list[str] | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "photos" / name
        found = {key: value for key, value in columns(path).items() if changes.get(key, value) is not None}
        write_table(path, pa.table(found | {key: value for key, value in changes.items() if value is not None}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_concepts(lambda text: text.splitlines()[0] + "\n"), "it has no concepts"),
        (spoil_concepts(lambda text: text.replace("\n2\t", "\n3\t")), "line 4 must have the index 2 and a uniqueID"),
        (spoil_concepts(lambda text: text.replace("\nindex\t", "\n").replace("0\tgold", "gold")), "line 2 must have"),
        (spoil_concepts(lambda text: text + "7\tshort\n"), "line 9 must have"),
        (array("vice_embedding.npy", np.zeros((6, 5))), "a row of numbers for each of the 7 concepts"),
        (array("vice_embedding.npy", np.array([None] * 7)), "Object arrays cannot be loaded"),
        (array("human_triplets_2171.npy", np.array([[0, 1, 7]])), "three columns of rows of the 7 concepts"),
        (array("human_triplets_2171.npy", np.array([[0, 1]])), "three columns of rows of the 7 concepts"),
        (array("rdm48_rows.npy", np.array([0, -1, 2])), "it must list rows of the 7 concepts"),
        (array("rdm48.npy", np.zeros((2, 2))), "3 rows and columns, as rdm48_rows.npy says"),
        (table("caltech101.parquet", split=None, id=None), "it has no column id, split"),
        (table("imagenet_sample.parquet"), "it has no column image"),
        (
            table("imagenet_sample.parquet", image=["x"] * 3, things_id=["ice", "unicorn", "face"]),
            "its things_id 'unicorn' is not in concepts.tsv",
        ),
    ],
)
def test_an_odd_file_is_explained(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(folder)
    with pytest.raises(LikemindError) as caught:
        open_photographs(folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_list_of_public_files() -> None:
    sources = pack.read_sources()
    parts = [source.part for source in sources]
    assert [parts.count(part) for part in (pack.IMAGENET, pack.CALTECH)] == [1000, 2904]
    assert len({source.name for source in sources}) == len(sources) == 3911
    assert {len(source.sha256) for source in sources} == {64}
    assert {len(source.commit) for source in sources} == {40}
    assert {source.path for source in sources if source.part not in pack._SIZES} == pack._DATA


def test_our_tables_are_those_of_the_shared_data(shared_data: Path) -> None:
    assert gzip.decompress((TABLES / "sources.csv.gz").read_bytes()) == (shared_data / "sources.csv").read_bytes()
    for name in ("imagenet_to_things.csv", "caltech_to_things.csv"):
        assert (TABLES / name).read_bytes() == (shared_data / "things" / name).read_bytes()


def test_the_shared_data_are_found(shared_data: Path) -> None:
    found = open_photographs(shared_data)
    assert found.tiny is not None
    assert found.licences == LICENCES
    concepts = read_concepts(found.concepts)
    assert len(concepts) == 1854
    for name in ("imagenet_to_things.csv", "caltech_to_things.csv"):
        for row in csv.DictReader(io.StringIO((TABLES / name).read_text())):
            assert concepts[int(row["row"])]["uniqueID"] == row["things_id"]


def test_the_shared_data_have_the_rows_that_we_would_make(shared_data: Path, tmp_path: Path) -> None:
    found = open_photographs(shared_data)
    sources = pack.read_sources()
    caltech = pack.caltech_rows([source.path for source in sources if source.part == pack.CALTECH])
    assert caltech == pq.read_table(found.caltech, columns=list(caltech)).to_pydict()
    names = shared_data / "breeds" / "dataset_class_info.json"
    imagenet = pack.imagenet_rows([source.path for source in sources if source.part == pack.IMAGENET], names)
    assert imagenet == pq.read_table(found.imagenet, columns=list(imagenet)).to_pydict()


def test_the_shared_data_follow_the_same_alphabet(shared_data: Path) -> None:
    found = open_photographs(shared_data)
    concepts = read_concepts(found.concepts)
    order = pack.alphabetical([concept["reference_image"] for concept in concepts])
    assert int((order != np.arange(len(order))).sum()) == 21
    vice = np.load(found.embedding)
    np.testing.assert_array_equal(pack.reorder(vice[order], order), vice)
    camera = np.flatnonzero(order == 247).item()
    assert (camera, concepts[247]["uniqueID"], concepts[246]["uniqueID"]) == (246, "camera1", "camera_lens")
    assert 247 in np.load(found.rdm_rows)


def test_a_shared_photograph_is_already_small(shared_data: Path) -> None:
    found = open_photographs(shared_data)
    for path, part in ((found.imagenet, pack.IMAGENET), (found.caltech, pack.CALTECH)):
        side, quality = pack._SIZES[part]
        image = picture(path, 7)
        again = Image.open(io.BytesIO(pack.shrink(pq.read_table(path)["image"][7].as_py(), side, quality)))
        assert again.size == image.size
        assert again.quantization == image.quantization

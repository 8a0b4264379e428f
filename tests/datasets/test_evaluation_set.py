from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from likemind.datasets.evaluation_set import Description, EvaluationSet, write_description
from likemind.errors import LikemindError
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from pathlib import Path

IDS = [f"{letter}.png" for letter in "abcdef"]
COLUMNS: dict[str, list[Any]] = {
    "id": IDS,
    "name": ["ant", "bee", "car", "dog", "eel", None],
    "category": ["bug", "bug", "thing", "beast", "beast", 7],
    "group": ["animal", "animal", "thing", "animal", "animal", "thing"],
    "split": ["train"] * 3 + ["heldout"] * 3,
    "fewshot": ["", "", "", "heldout", None, "heldout"],
}


def items(folder: Path, **changes: list[Any]) -> None:
    columns = {name: [None if v is None else str(v) for v in values] for name, values in (COLUMNS | changes).items()}
    write_table(folder / "items.parquet", pa.table(columns))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for look, colour in (("plain", "red"), ("outline", "white")):
        (tmp_path / look).mkdir()
        for name in IDS:
            Image.new("RGB", (4, 4), colour).save(tmp_path / look / name)
    items(tmp_path)
    triplets = Triplets(IDS, np.array([[3, 4, 5], [5, 4, 3]]), choice=np.array([2, 0]))
    triplets.to_parquet(tmp_path / "heldout.parquet")
    write_description(
        tmp_path,
        Description(
            name="six",
            source="simulated",
            about="Six colours.",
            images="plain",
            judgements={"heldout": "heldout.parquet"},
            shifts={"outline": "outline"},
        ),
    )
    return tmp_path


def test_what_it_holds(folder: Path) -> None:
    data = EvaluationSet.load(folder)
    assert EvaluationSet.load(data) is data
    assert data.images().ids == IDS
    assert data.images().read(0).getpixel((0, 0)) == (255, 0, 0)
    assert data.images("outline").read(0).getpixel((0, 0)) == (255, 255, 255)
    found = data.judgements("heldout")
    assert found.odd_items == ["f.png", "f.png"]
    assert found.source == "simulated"
    assert [item.id for item in data.select("train")] == IDS[:3]
    assert [item.id for item in data.select("heldout", fewshot="heldout")] == ["d.png", "f.png"]
    assert [item.id for item in data.select(fewshot="heldout")] == ["d.png", "f.png"]
    assert len(data.select()) == 6
    assert (data.items[5].name, data.items[5].category, data.items[4].fewshot) == ("", "7", "")


@pytest.mark.parametrize("part", ["dataset.json", "items.parquet", "heldout.parquet", "plain/a.png", "outline/f.png"])
def test_the_key_follows_every_file(folder: Path, part: str) -> None:
    before = EvaluationSet.load(folder).key
    assert EvaluationSet.load(folder).key == before
    path = folder / part
    if part == "dataset.json":
        path.write_text(path.read_text().replace("Six", "The six"))
    elif part == "items.parquet":
        items(folder, name=list("abcdef"))
    else:
        path.write_bytes(path.read_bytes() + b" ")
    assert EvaluationSet.load(folder).key != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": ["a.png"] * 6}, r"'a\.png' twice"),
        ({"id": [*IDS[:5], None]}, r"row 5 .*an id is needed"),
        ({"split": ["train"] * 5 + ["valid"]}, r"row 5 .*split 'valid'"),
        ({"fewshot": ["test"] * 6}, r"row 0 .*fewshot 'test'"),
    ],
)
def test_items_are_checked(folder: Path, change: dict[str, list[Any]], said: str) -> None:
    items(folder, **change)
    with pytest.raises(LikemindError, match=said):
        EvaluationSet.load(folder)


def test_missing_columns_and_files_are_named(folder: Path) -> None:
    with pytest.raises(LikemindError, match="no judgements for train"):
        EvaluationSet.load(folder).judgements("train")
    with pytest.raises(LikemindError, match=r"no shift 'sketch' \(it has outline\)"):
        EvaluationSet.load(folder).images("sketch")
    write_table(folder / "items.parquet", pa.table({"id": IDS, "name": IDS}))
    with pytest.raises(LikemindError, match=r"items\.parquet has no column category, group, split, fewshot"):
        EvaluationSet.load(folder)
    (folder / "items.parquet").unlink()
    with pytest.raises(LikemindError, match=r"items\.parquet does not exist"):
        EvaluationSet.load(folder)
    with pytest.raises(LikemindError, match=r"dataset\.json does not exist"):
        EvaluationSet.load(folder / "plain")


def test_judgements_may_not_leave_their_split(folder: Path) -> None:
    Triplets(IDS, np.array([[3, 4, 0]]), choice=np.array([2])).to_parquet(folder / "heldout.parquet")
    with pytest.raises(LikemindError, match=r"name 1 items that are not heldout items \('a\.png'\)"):
        EvaluationSet.load(folder).judgements("heldout")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "guessed"}, r"dataset\.json: source: input should be"),
        ({"judgements": {"test": "x"}}, r"dataset\.json: judgements\.test"),
        ({"colour": 1}, r"dataset\.json: colour: extra inputs"),
        ({"name": None}, r"dataset\.json: name"),
    ],
)
def test_the_description_is_checked(folder: Path, change: dict[str, Any], said: str) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LikemindError, match=said):
        EvaluationSet.load(folder)


# --- recorded answers and ratings


@pytest.fixture
def recorded(folder: Path) -> Path:
    """The folder with answers and ratings, some about what it has no picture of."""
    names = ["a.png", "beast", "unicorn", "thing", "7"]
    indices = np.array([[0, 1, 3], [1, 2, 3], [4, 3, 0], [1, 0, 3]])
    Triplets(names, indices, choice=np.array([0, 1, 2, 1]), source="human").to_parquet(folder / "asked.parquet")
    apart = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    RatingMatrix(["unicorn", "bug", "f.png", "beast"], apart).to_parquet(folder / "rated.parquet")
    path = folder / "dataset.json"
    about = {"tasks": "six/unseen", "answers": {"asked": "asked.parquet"}, "ratings": {"rated": "rated.parquet"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | about))
    return folder


def test_a_name_is_an_items_or_a_categorys(recorded: Path) -> None:
    data = EvaluationSet.load(recorded)
    wanted = {"bug": [0, 1], "c.png": [2], "beast": [3, 4], "7": [5]}
    assert data.rows_of(["bug", "unicorn", "c.png", "beast", "", "7"]) == wanted
    assert list(data.rows_of(["beast", "bug"])) == ["beast", "bug"]
    assert data.rows_of([]) == {}


def test_where_a_category_has_an_items_name_the_item_is_meant(folder: Path) -> None:
    items(folder, category=["b.png", "b.png", "thing", "beast", "beast", "x"])
    assert EvaluationSet.load(folder).rows_of(["b.png", "thing"]) == {"b.png": [1], "thing": [2]}


def test_answers_about_what_is_not_there_are_left_out(recorded: Path) -> None:
    found = EvaluationSet.load(recorded).answers("asked")
    assert [[found.items[k] for k in row] for row in found.indices] == [
        ["a.png", "beast", "thing"],
        ["7", "thing", "a.png"],
        ["beast", "a.png", "thing"],
    ]
    assert found.odd_items == ["a.png", "a.png", "a.png"]
    assert found.source == "human"  # whatever the main answers are
    assert EvaluationSet.load(recorded).description.source == "simulated"


def test_ratings_of_what_is_not_there_are_left_out(recorded: Path) -> None:
    found = EvaluationSet.load(recorded).ratings("rated")
    assert list(found.items) == ["bug", "f.png", "beast"]
    np.testing.assert_array_equal(found.dissimilarities, [[0, 1, 2], [1, 0, 1], [2, 1, 0]])


def test_a_folder_need_not_have_them(folder: Path) -> None:
    about = EvaluationSet.load(folder).description
    assert (about.tasks, about.answers, about.ratings) == ("", {}, {})


@pytest.mark.parametrize("part", ["asked.parquet", "rated.parquet"])
def test_the_key_follows_them_too(recorded: Path, part: str) -> None:
    before = EvaluationSet.load(recorded).key
    path = recorded / part
    path.write_bytes(path.read_bytes() + b" ")
    assert EvaluationSet.load(recorded).key != before
    path.unlink()
    with pytest.raises(LikemindError, match=part):
        _ = EvaluationSet.load(recorded).key


@pytest.mark.parametrize(("part", "call"), [("asked.parquet", "answers"), ("rated.parquet", "ratings")])
def test_their_files_are_named_when_they_are_broken(recorded: Path, part: str, call: str) -> None:
    data = EvaluationSet.load(recorded)
    (recorded / part).write_bytes(b"not Parquet")
    with pytest.raises(LikemindError, match=rf"{part} is not a readable Parquet file") as error:
        getattr(data, call)(part.removesuffix(".parquet"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"answers": ["asked.parquet"]}, {"ratings": {"rated": 1}}, {"tasks": None}])
def test_they_are_named_in_the_description_as_they_must_be(recorded: Path, change: dict[str, Any]) -> None:
    path = recorded / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LikemindError, match=rf"dataset\.json: {next(iter(change))}"):
        EvaluationSet.load(recorded)

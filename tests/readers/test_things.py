from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_files import THINGS, needs_things

from likemind.errors import LikemindError
from likemind.readers.judgements import Request, read, read_judgements
from likemind.readers.names import from_zero, read_items
from likemind.readers.things import to_things_splits
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ant", "bee", "car", "dog", "eel"]
RELEASE = (
    "image1\timage2\timage3\tchoice\tRT\tsubject_id\n1\t2\t3\t3\t2500\tann\n5\t4\t1\t1\t900\tbob\n2\t3\t4\t2\t\tann\n"
)


def write(folder: Path, text: str, name: str = "things.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def notes(path: Path, **request: object) -> str:
    return " ".join(read(path, Request(**request)).notes)  # type: ignore[arg-type]


def test_release(tmp_path: Path) -> None:
    found = read_judgements(write(tmp_path, RELEASE), items=NAMES)
    assert isinstance(found, Triplets)
    assert found.indices.tolist() == [[0, 1, 2], [4, 3, 0], [1, 2, 3]]
    assert found.odd_items == ["car", "eel", "car"]
    assert found.response_time is not None
    np.testing.assert_equal(found.response_time, [2.5, 0.9, np.nan])
    assert found.participant is not None
    assert found.participant.tolist()[1] == hashlib.sha256(b"bob").hexdigest()[:16]
    assert found.source == "human"


def test_release_with_the_odd_item_in_place_of_its_position(tmp_path: Path) -> None:
    text = "image1\timage2\timage3\tchoice\n1\t2\t5\t5\n5\t4\t1\t1\n"
    assert read_judgements(write(tmp_path, text), items=NAMES).odd_items == ["eel", "ant"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image1\timage2\timage3\tchoice\n1\t2\t5\t4\n5\t4\t1\t1\n", r"triplet 0 .*choice 4 is neither"),
        ("image1\timage2\timage3\tchoice\n1\t2\t9\t1\n", r"triplet 0 .*holds item 9.* 1 to 9.*5 names"),
        ("image1\timage2\timage3\tchoice\n1\t2\t3\t1\n-1\t2\t3\t1\n", r"triplet 1 .*holds item -1"),
        ("image1\timage2\timage3\tchoice\n0\t2\t5\t1\n", r"run from 0 to 5"),
        ("image1\timage2\timage3\tchoice\n1\t2\tx\t1\n", r"not a readable table .*x"),
        ("image1\timage2\timage3\tchoice\n1\t2\t\t1\n", r"triplet 0 .*no image3"),
        ("image1\timage2\timage3\tchoice\n2\t2\t3\t1\n", r"triplet 0 .*repeated"),
        ("image1\timage2\timage3\tchoice\n", "holds no judgements"),
        ("image1\timage2\timage3\n1\t2\t3\n", "no column choice"),
    ],
)
def test_what_is_wrong_in_a_release(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        read_judgements(write(tmp_path, text), items=NAMES, format="things")


def test_numbers_alone_need_names(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="numbers alone: pass items"):
        read_judgements(write(tmp_path, RELEASE))


@pytest.mark.parametrize(
    ("numbers", "rule", "base", "said"),
    [
        ([1, 2, 4], 1, 1, "counted from 1, as this format does"),
        ([1, 2, 4], 0, 0, "counted from 0, as this format does"),
        ([0, 2, 4], 0, 0, ""),
        ([1, 2, 5], 1, 1, ""),
        ([0, 2, 4], 1, 0, "counted from 0 though this format counts from 1"),
        ([1, 2, 5], 0, 1, "counted from 1 though this format counts from 0"),
    ],
)
def test_where_counting_starts(tmp_path: Path, numbers: list[int], rule: int, base: int, said: str) -> None:
    indices, told = from_zero(np.array([numbers]), read_items(NAMES), rule, tmp_path)
    assert indices.tolist() == [[number - base for number in numbers]]
    assert said in " ".join(told)
    assert bool(said) == bool(told)


@pytest.mark.parametrize("text", ["0 1 2\n4 3 0\n", "0,1,2\n4,3,0\n", "0.0e+00 1.0e+00 2.0e+00\n4 3 0\n"])
def test_splits_as_text(tmp_path: Path, text: str) -> None:
    found = read_judgements(write(tmp_path, text, "trainset.txt"), items=NAMES)
    assert found.odd_items == ["car", "ant"]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64])
def test_splits_as_npy(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "train_90.npy", np.array([[0, 1, 2], [4, 3, 0]], dtype=dtype))
    assert read_judgements(tmp_path / "train_90.npy", items=NAMES).odd_items == ["car", "ant"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([[0, 1, 9]]), r"triplet 0 .*holds item 9"),
        (np.array([[0.0, 1.5, 2.0]]), r"triplet 0 .*whole numbers"),
        (np.array([[0.0, np.nan, 2.0]]), r"triplet 0 .*whole numbers"),
        (np.array([[0, 1, 2, 3]]), r"three numbers a row, got the shape \(1, 4\)"),
        (np.zeros((0, 3), dtype=int), "three numbers a row"),
        (np.array([[0, 1, 1]]), r"triplet 0 .*repeated"),
        (np.array([["a", "b", "c"]]), "not numbers"),
        (np.array([[{}, 1, 2]], dtype=object), "not a readable .npy file"),
    ],
)
def test_what_is_wrong_in_a_split(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "t.npy", array, allow_pickle=True)
    with pytest.raises(LikemindError, match=said):
        read_judgements(tmp_path / "t.npy", items=NAMES, format="things-splits")


@pytest.mark.parametrize("text", ["0 1 2\n0 1\n", "0 1 x\n"])
def test_text_that_is_no_split(tmp_path: Path, text: str) -> None:
    with pytest.raises(LikemindError, match="same number of numbers a row"):
        read_judgements(write(tmp_path, text, "t.txt"), items=NAMES, format="things-splits")


@pytest.mark.parametrize("name", ["t.txt", "t.npy"])
@given(choice=st.lists(st.integers(0, 2), min_size=2, max_size=5))
def test_what_is_written_reads_back(tmp_path: Path, name: str, choice: list[int]) -> None:
    answers = Triplets(NAMES, np.array([[0, 1, 4]] * len(choice)), choice=np.array(choice))
    to_things_splits(answers, tmp_path / name)
    found = read_judgements(tmp_path / name, items=NAMES, format="things-splits")
    assert found.odd_items == answers.odd_items
    assert np.sort(found.indices, axis=1).tolist() == answers.indices.tolist()


def test_only_answers_are_written(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="no choice"):
        to_things_splits(Triplets(NAMES, np.array([[0, 1, 2]])), tmp_path / "t.txt")
    assert list(tmp_path.iterdir()) == []


def test_items_from_files(tmp_path: Path) -> None:
    assert read_items(write(tmp_path, "\ufeffant\r\nbee\r\n", "a.txt")).names == ["ant", "bee"]
    plain = 'uniqueID\tword\nan"t\tant\nbee\tbee\n'
    assert read_items(write(tmp_path, plain, "concepts.tsv")).names == ['an"t', "bee"]
    quoted = 'Word\tuniqueID\t"a long\ndefinition"\nant\tant1\t"small\n insect"\n'
    assert read_items(write(tmp_path, quoted, "published.tsv")).names == ["ant1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ant\n\nbee\n", "line 2 is empty"),
        ("", "line 1 is empty"),
        ("ant\nant\n", "holds 'ant' twice"),
        ("word\tkind\nant\tanimal\n", "none is uniqueID"),
        ("uniqueID\tword\nant\n", "rows of different lengths"),
    ],
)
def test_items_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        read_items(write(tmp_path, text, "items.txt"))


def test_items_that_are_nowhere(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="does not exist"):
        read_items(tmp_path / "gone.txt")
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LikemindError, match="no text"):
        read_items(tmp_path / "b")


def test_what_a_format_has_no_use_for_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "item_0,item_1,item_2,choice\na,b,c,0\n", "a.csv")
    with pytest.raises(LikemindError, match="read as csv, where items means nothing"):
        read_judgements(path, items=NAMES)
    with pytest.raises(LikemindError, match="columns means nothing"):
        read_judgements(write(tmp_path, RELEASE), items=NAMES, format="things", item_0="image1")
    with pytest.raises(LikemindError, match="format 'thing' is not one of parquet"):
        read_judgements(path, format="thing")


@needs_things
def test_real_answers() -> None:
    path, concepts = THINGS / "human_triplets_2171.npy", THINGS / "concepts.tsv"
    found = read_judgements(path, items=concepts)
    assert isinstance(found, Triplets)
    assert len(found) == 2171
    rows = np.load(path)
    assert found.indices.tolist() == rows.tolist()
    assert found.odd_items == [found.items[row] for row in rows[:, 2]]
    assert notes(path, items=concepts) == ""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.errors import LikemindError
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import read_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

THREE = np.array([[0, 0.5, 0.25], [0.5, 0, 1], [0.25, 1, 0]])
NAMES = ["ant", "bee", "car"]


def with_cell(row: int, column: int, value: float, *, both: bool = False) -> np.ndarray:
    matrix = THREE.copy()
    matrix[row, column] = value
    if both:
        matrix[column, row] = value
    return matrix


@pytest.mark.parametrize(
    ("items", "matrix", "words"),
    [
        (NAMES[:2], THREE, r"2 items need a matrix of 2 rows and columns, got \(3, 3\): mend it"),
        (NAMES, THREE[0], r"3 items need a matrix of 3 rows and columns, got \(3,\)"),
        (NAMES, THREE[:, :2], r"3 items need .* got \(3, 2\)"),
        (NAMES, with_cell(1, 2, np.nan, both=True), "dissimilarities of 'bee' are not all finite: fill or remove them"),
        (NAMES, with_cell(0, 2, np.inf), "dissimilarities of 'ant' are not all finite"),
        (NAMES, with_cell(0, 2, 0.26), "not symmetric: average both directions"),
        (NAMES, THREE * 1e9 + with_cell(0, 1, 1e4) - THREE, "not symmetric"),
        (NAMES, 1 - THREE, "the diagonal is not zero: give dissimilarities, where larger is less alike"),
        (["ant", "bee", "ant"], THREE, "'ant' is rated twice: names must be unique"),
        (NAMES, [["a", "b", "c"]] * 3, "not a matrix of numbers: mend them"),
        (NAMES, [[0, 1, 2], [1, 0], [2]], "not a matrix of numbers"),
        (NAMES, [[0, None, {}]] * 3, "not a matrix of numbers"),
    ],
)
def test_what_is_no_matrix_of_ratings(items: list[str], matrix: Any, words: str) -> None:
    with pytest.raises(LikemindError, match=words) as error:
        RatingMatrix(items, matrix)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["pseudo", "", "labels"])
def test_ratings_come_from_people_a_model_of_them_or_a_simulation(source: Any) -> None:
    with pytest.raises(
        LikemindError, match=f"source '{source}' is not one of human, human_model, simulated: say where"
    ):
        RatingMatrix(NAMES, THREE, source)


def test_what_rounding_leaves_is_forgiven() -> None:
    assert len(RatingMatrix(NAMES, with_cell(0, 1, 0.5 + 1e-8))) == 3
    assert len(RatingMatrix(NAMES, THREE.astype(np.float32) * 1e9 + with_cell(0, 1, 1e-2) - THREE)) == 3
    assert len(RatingMatrix(NAMES, THREE - 1e-17 * np.eye(3))) == 3
    assert RatingMatrix(NAMES, (THREE * 4).astype(int)).dissimilarities.dtype == np.float64
    assert len(RatingMatrix([], np.zeros((0, 0)))) == 0


def test_within_keeps_the_matrixs_order() -> None:
    found = RatingMatrix(NAMES, THREE, "simulated").within(["car", "unicorn", "ant", "car"])
    assert (list(found.items), found.source) == (["ant", "car"], "simulated")
    np.testing.assert_array_equal(found.dissimilarities, [[0, 0.25], [0.25, 0]])
    assert len(found.within([])) == 0


NAME = st.text(min_size=1, max_size=6)


@given(st.lists(NAME, unique=True, max_size=9), st.lists(NAME, max_size=9), st.integers(0, 2**32 - 1))
def test_within_is_the_pairs_written_out(items: list[str], names: list[str], seed: int) -> None:
    apart = np.random.default_rng(seed).random((len(items), len(items)))
    apart = apart + apart.T
    np.fill_diagonal(apart, 0)
    found = RatingMatrix(items, apart).within(names)
    assert list(found.items) == [name for name in items if name in names]
    for a, one in enumerate(found.items):
        for b, other in enumerate(found.items):
            assert found.dissimilarities[a, b] == apart[items.index(one), items.index(other)]


@given(st.lists(NAME, unique=True, max_size=9), st.sampled_from(["human", "human_model", "simulated"]))
def test_a_file_gives_back_what_was_written(tmp_path: Path, items: list[str], source: Any) -> None:
    apart = np.random.default_rng(len(items)).random((len(items), len(items)))
    apart = apart + apart.T
    np.fill_diagonal(apart, 0)
    RatingMatrix(items, apart, source).to_parquet(tmp_path / "rated.parquet")
    found = RatingMatrix.from_parquet(tmp_path / "rated.parquet")
    assert (list(found.items), found.source) == (items, source)
    np.testing.assert_array_equal(found.dissimilarities, apart)
    assert found.dissimilarities.dtype == np.float64


def columns(**changes: Any) -> pa.Table:
    there = {"item": NAMES, "to_0": THREE[0], "to_1": THREE[1], "to_2": THREE[2]} | changes
    return pa.table({name: values for name, values in there.items() if values is not None})


SHAPE = "is not a matrix of ratings \\(column item, then one an item\\): make it again"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (columns(item=None), SHAPE),
        (columns(to_2=None), SHAPE),
        (columns(to_2=None, bee=THREE[2]), SHAPE),
        (columns(more=THREE[2]), SHAPE),
        (columns(item=["ant", None, "car"]), SHAPE),
        (columns(item=["ant", "bee", "ant"]), "'ant' is rated twice"),
        (columns(to_1=[0.5, None, 1.0]), "dissimilarities of 'bee' are not all finite"),
        (columns(to_1=[0.5, 0.0, 2.0]), "not symmetric"),
        (columns(to_1=["far", "near", "far"]), "not a matrix of numbers"),
        (columns(to_1=[[1], [2, 3], []]), "not a matrix of numbers"),
        (columns().replace_schema_metadata({"likemind.source": "pseudo"}), "source 'pseudo' is not one of"),
        (columns().replace_schema_metadata({"likemind.source": b"\xff"}), "is not one of human"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, table: pa.Table, words: str) -> None:
    path = tmp_path / "rated.parquet"
    write_table(path, table)
    with pytest.raises(LikemindError, match=words) as error:
        RatingMatrix.from_parquet(path)
    assert str(error.value).startswith(f"{path}")
    assert "\n" not in str(error.value)


def test_no_file_and_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rated.parquet"
    with pytest.raises(LikemindError, match=r"rated\.parquet does not exist"):
        RatingMatrix.from_parquet(path)
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(LikemindError, match="not a readable Parquet file"):
        RatingMatrix.from_parquet(path)
    RatingMatrix(NAMES, THREE).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LikemindError, match="not a readable Parquet file"):
        RatingMatrix.from_parquet(path)


def test_a_plain_table_will_do(tmp_path: Path) -> None:
    """In any order of columns, with whole numbers; who says nothing of the source means people."""
    table = pa.table({"to_1": [2, 0], "item": [7, 8], "to_0": [0, 2]})
    write_table(tmp_path / "rated.parquet", table)
    found = RatingMatrix.from_parquet(tmp_path / "rated.parquet")
    assert (list(found.items), found.source) == (["7", "8"], "human")
    np.testing.assert_array_equal(found.dissimilarities, [[0, 2], [2, 0]])
    assert read_table(tmp_path / "rated.parquet").num_rows == 2

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_files import THINGS, needs_things

from likemind.errors import LikemindError
from likemind.readers import embeddings
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.judgements import Request, read, read_judgements
from likemind.readers.names import read_items
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ant", "bee", "car", "dog"]
MATRIX = np.array([[1, 0, 0, 2, 1], [1, 0.5, 0, 2, 0], [0, 0, 3, 0, 0], [1, 0, 0, 1, 0]])
CONCEPTS = "uniqueID\tword\naardvark\ta\ncamera_lens\tl\ncamera1\tc\nzebra\tz\n"


def write(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def saved(folder: Path, matrix: np.ndarray = MATRIX) -> Path:
    np.save(folder / "e.npy", matrix)
    return folder / "e.npy"


def loaded(path: Path, **request: Any) -> HumanEmbedding:
    found = read_judgements(path, **request)
    assert isinstance(found, HumanEmbedding)
    return found


def test_choices_are_a_softmax_of_dot_products() -> None:
    model = HumanEmbedding(NAMES, MATRIX)
    a, b, c = MATRIX[[3, 0, 2]]
    exp = np.exp([a @ b, a @ c, b @ c])
    np.testing.assert_allclose(model.probabilities(np.array([[3, 0, 2]])), [exp / exp.sum()])
    np.testing.assert_allclose(model.probabilities(np.array([[3, 0, 2]]), temperature=1e9), [[1 / 3] * 3])
    np.testing.assert_allclose(model.similarities(), MATRIX @ MATRIX.T)
    large = HumanEmbedding(NAMES, MATRIX * 1e3).probabilities(np.array([[0, 1, 2]]))
    np.testing.assert_allclose(large, [[1, 0, 0]])


@given(st.integers(3, 9), st.data())
def test_drawn_triplets_differ(m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, math.comb(m, 3)))
    model = HumanEmbedding([f"item {k}" for k in range(m)], np.arange(2.0 * m).reshape(m, 2) / m)
    drawn = model.triplets(n, seed=1)
    assert len({frozenset(row) for row in drawn.indices.tolist()}) == n
    assert drawn.source == "human_model"
    np.testing.assert_allclose(drawn.probabilities, model.probabilities(drawn.indices))
    again = model.triplets(n, seed=1)
    np.testing.assert_array_equal(drawn.indices, again.indices)


def test_every_triplet_is_drawn_alike() -> None:
    model = HumanEmbedding([str(k) for k in range(6)], np.eye(6))
    assert np.bincount(np.concatenate([model.triplets(10, seed=s).indices.ravel() for s in range(200)])).min() > 800
    many = HumanEmbedding([str(k) for k in range(1854)], np.ones((1854, 1))).triplets(5000)
    assert (np.diff(many.indices, axis=1) > 0).all()
    assert many.indices.max() > 1840
    with pytest.raises(LikemindError, match="6 items make 20 different triplets, 21 are asked for"):
        model.triplets(21)


@pytest.mark.parametrize(
    ("items", "matrix", "source", "said"),
    [
        (NAMES, MATRIX[:3], "human_model", r"4 items need an embedding of 4 rows, got \(3, 5\)"),
        (NAMES, MATRIX[0][:4], "human_model", "embedding of 4 rows"),
        (NAMES, np.full((4, 2), np.nan), "human_model", "embedding of 'ant' is not all finite"),
        (["a", "b", "a"], np.eye(3), "human_model", "'a' has two rows"),
        (NAMES, MATRIX, "human", "source 'human' is not one of human_model, simulated"),
    ],
)
def test_what_is_no_embedding(items: list[str], matrix: np.ndarray, source: Any, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        HumanEmbedding(items, matrix, source)


def test_parquet(tmp_path: Path) -> None:
    HumanEmbedding(NAMES, MATRIX, "simulated").to_parquet(tmp_path / "e.parquet")
    found = loaded(tmp_path / "e.parquet")
    assert (found.items, found.source) == (NAMES, "simulated")
    np.testing.assert_array_equal(found.embedding, MATRIX)
    assert loaded(tmp_path / "e.parquet", source="human_model").source == "human_model"
    Triplets(NAMES, np.array([[0, 1, 2]]), choice=np.array([0])).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(LikemindError, match="not an embedding"):
        read_judgements(tmp_path / "t.parquet", format="embedding")
    for columns, said in [
        ({"item": ["a", None], "dim_0": [1.0, 2.0]}, "not an embedding"),
        ({"item": ["a", "a"], "dim_0": [1.0, 2.0]}, r"t\.parquet: 'a' has two rows"),
        ({"item": ["a", "b"], "dim_0": ["x", "y"]}, r"t\.parquet: the embedding is not a matrix of numbers"),
    ]:
        write_table(tmp_path / "t.parquet", pa.table(columns))
        with pytest.raises(LikemindError, match=said):
            read_judgements(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "name", "items"),
    [
        ("1 2 3 4\n5 6 7 8\n9 1 2 3\n", "e.txt", True),
        ("1,2,3,4\n5,6,7,8\n9,1,2,3\n", "e.txt", True),
        ("ant,1,2,3,4\nbee,5,6,7,8\ncar,9,1,2,3\n", "e.csv", False),
        ("name\t0\t1\t2\t3\nant\t1\t2\t3\t4\nbee\t5\t6\t7\t8\ncar\t9\t1\t2\t3\n", "e.tsv", False),
        (",name,a,b,c,d\n0,ant,1,2,3,4\n1,bee,5,6,7,8\n2,car,9,1,2,3\n", "e.csv", False),
    ],
)
def test_as_text(tmp_path: Path, text: str, name: str, items: bool) -> None:
    found = loaded(write(tmp_path, text, name), format="embedding", items=NAMES[:3] if items else None)
    assert found.items == NAMES[:3]
    assert found.embedding.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]]


def test_npy_needs_as_many_names(tmp_path: Path) -> None:
    assert loaded(saved(tmp_path), items=NAMES).items == NAMES
    with pytest.raises(LikemindError, match="pass items"):
        read_judgements(saved(tmp_path))
    with pytest.raises(LikemindError, match=r"shape \(4, 5\), but items holds 3 names"):
        read_judgements(saved(tmp_path), items=NAMES[:3])
    with pytest.raises(LikemindError, match="order 'alphabet' is not items or photographs"):
        read_judgements(saved(tmp_path), items=NAMES, order="alphabet")
    with pytest.raises(LikemindError, match="pass items, THINGS"):
        read_judgements(saved(tmp_path), order="photographs")


def test_order_of_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concepts, path = write(tmp_path, CONCEPTS, "concepts.tsv"), saved(tmp_path)
    plain = read(path, Request(items=concepts))
    assert "2 rows would differ (order photographs)" in plain.notes[0]
    assert read(path, Request(items=concepts, order="items")).notes == []
    moved = read(path, Request(items=concepts, order="photographs"))
    assert isinstance(moved.judgements, HumanEmbedding)
    assert moved.judgements.items == ["aardvark", "camera_lens", "camera1", "zebra"]
    np.testing.assert_array_equal(moved.judgements.embedding, MATRIX[[0, 2, 1, 3]])
    assert "2 moved to the order of items" in moved.notes[0]
    monkeypatch.setattr(embeddings, "_BY_PHOTOGRAPH", {embeddings.digest(path): "VICE"})
    known = read(path, Request(items=concepts))
    assert known.notes[0].startswith("VICE, as published")
    assert isinstance(known.judgements, HumanEmbedding)
    np.testing.assert_array_equal(known.judgements.embedding, moved.judgements.embedding)


def test_wrong_names_of_the_published_table(tmp_path: Path) -> None:
    rows = "".join(
        f"{k},{name}_01b.jpg,{k}.5,1,2\n" for k, name in enumerate(["aardvark", "camera1", "camera_lens", "zebra"])
    )
    path = write(tmp_path, ",image_name,0,1,2\n" + rows, "spose.csv")
    with pytest.raises(LikemindError, match="21 names are wrong: pass items"):
        read_judgements(path)
    found = read(path, Request(items=write(tmp_path, CONCEPTS, "concepts.tsv"), order="items"))
    assert isinstance(found.judgements, HumanEmbedding)
    assert found.judgements.items == ["aardvark", "camera_lens", "camera1", "zebra"]
    assert found.judgements.embedding[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert "is not used" in found.notes[0]


def test_a_scale_that_leaves_no_doubt_is_told(tmp_path: Path) -> None:
    notes = read(saved(tmp_path, np.random.default_rng(0).random((4, 9)) * 100), Request(items=NAMES)).notes
    assert "nearly certain" in notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ant,1,2\nbee,1\n", r"row 1 .*not as long"),
        ("ant,1,2\nbee,1,x\n", "not hold numbers"),
        ("ant,1,nan\nbee,1,2\n", "'ant' is not all finite"),
        ("1,2,3\n4,5\n", "same number of numbers"),
        ("ant,1,2\nant,1,2\n", "'ant' has two rows"),
    ],
)
def test_what_is_wrong_in_a_table(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LikemindError, match=said) as caught:
        read_judgements(write(tmp_path, text, "e.csv"), format="embedding")
    assert str(caught.value).count("e.csv") == 1


def agreement(model: HumanEmbedding, answers: Triplets) -> float:
    return float((model.pair_similarities(answers.indices).argmax(axis=1) == 0).mean())


@needs_things
def test_real_vice_agrees_with_people_only_in_the_right_order(tmp_path: Path) -> None:
    concepts = THINGS / "concepts.tsv"
    answers = read_judgements(THINGS / "human_triplets_2171.npy", items=concepts)
    assert isinstance(answers, Triplets)
    vice = loaded(THINGS / "vice_embedding.npy", items=concepts)
    assert round(100 * agreement(vice, answers), 2) == 66.37
    names = read_items(concepts)
    row = {name: number for number, name in enumerate(names.names)}
    published = saved(tmp_path, vice.embedding[[row[name] for name in names.by_photograph()]].astype(np.float32))
    assert round(100 * agreement(loaded(published, items=concepts, order="items"), answers), 2) == 66.01
    assert round(100 * agreement(loaded(published, items=concepts, order="photographs"), answers), 2) == 66.37
    spose = read(THINGS / "spose_embedding.npy", Request(items=concepts, order="items"))
    assert "nearly certain" in spose.notes[0]
    assert isinstance(spose.judgements, HumanEmbedding)
    nats = -np.log(spose.judgements.probabilities(answers.indices, temperature=1600)[:, 0]).mean()
    assert round(float(nats), 3) == 0.793

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from real_files import THINGS, needs_things
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform

from likemind.errors import LikemindError
from likemind.readers.judgements import Request, read, read_judgements
from likemind.readers.ratings import RatingMatrix

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ant", "bee", "car", "dog"]
VECTOR = pdist(np.random.default_rng(0).random((4, 2)))
APART = squareform(VECTOR)
ALIKE = 10 - APART


def saved(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "r.npy", values)
    return folder / "r.npy"


def rated(path: Path, **request: Any) -> RatingMatrix:
    found = read_judgements(path, **request)
    assert isinstance(found, RatingMatrix)
    return found


@pytest.mark.parametrize("scale", [None, "right"])
def test_similarities_and_dissimilarities(tmp_path: Path, scale: str | None) -> None:
    for values, what in ((APART, "dissimilarity"), (ALIKE, "similarity")):
        found = read(saved(tmp_path, values), Request(items=NAMES, scale=scale and what))
        assert isinstance(found.judgements, RatingMatrix)
        np.testing.assert_allclose(found.judgements.dissimilarities, APART)
        assert found.judgements.items == NAMES
        assert len(found.notes) == (scale is None)


def test_vectors_and_blank_diagonals(tmp_path: Path) -> None:
    np.testing.assert_allclose(rated(saved(tmp_path, VECTOR), items=NAMES, format="ratings").dissimilarities, APART)
    alike = rated(saved(tmp_path, 9 - VECTOR), items=NAMES, format="ratings", scale="similarity").dissimilarities
    np.testing.assert_allclose(alike[~np.eye(4, dtype=bool)], (APART - VECTOR.min())[~np.eye(4, dtype=bool)])
    blank = APART.copy()
    np.fill_diagonal(blank, np.nan)
    assert rated(saved(tmp_path, blank), items=NAMES, scale="dissimilarity").dissimilarities[0, 0] == 0


def test_mat(tmp_path: Path) -> None:
    path = tmp_path / "rdm.mat"
    savemat(path, {"RDM": APART, "note": "text", "n": 4.0})
    np.testing.assert_allclose(rated(path, items=NAMES).dissimilarities, APART)
    savemat(path, {"one": APART, "two": ALIKE, "cells": np.array([{}, 1], dtype=object)})
    with pytest.raises(LikemindError, match=r"variables 'one', 'two': name one"):
        read_judgements(path, items=NAMES)
    np.testing.assert_allclose(rated(path, items=NAMES, variable="two").dissimilarities, APART)
    with pytest.raises(LikemindError, match="name one as variable"):
        read_judgements(path, items=NAMES, variable="cells")
    path.write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    with pytest.raises(LikemindError, match=r"not a readable \.mat file"):
        read_judgements(path, items=NAMES)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x00" * 512)
    with pytest.raises(LikemindError, match=r"MATLAB 7\.3"):
        read_judgements(path, items=NAMES)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("comma", [",", "\t"])
def test_tables(tmp_path: Path, above: bool, beside: bool, comma: str) -> None:
    rows = [[*([name] if beside else []), *map(str, row)] for name, row in zip(NAMES, APART, strict=True)]
    rows = [[*([""] if beside else []), *NAMES], *rows] if above else rows
    path = tmp_path / "r.csv"
    path.write_text("\n".join(comma.join(row) for row in rows) + "\n")
    found = rated(path, format="ratings", items=None if above or beside else NAMES)
    assert found.items == NAMES
    np.testing.assert_allclose(found.dissimilarities, APART)
    if above and beside:
        assert rated(path).items == NAMES
        with pytest.raises(LikemindError, match="other names, or another order, than items"):
            read_judgements(path, items=NAMES[::-1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",a,b\na,0,1\nc,1,0\n", "item 1 .*'b' above and 'c' beside"),
        (",a,b\na,0,1\nb,x,0\n", "not hold a matrix of numbers"),
        (",a,b\na,0,1\nb,0\n", r"not as long|holds"),
        (",a,b\na,0,1\nb,2,0\n", "not symmetric"),
        (",a,b\na,0,\nb,,0\n", "'a' are not all finite"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_in_a_table(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(LikemindError, match=said) as caught:
        read_judgements(tmp_path / "r.csv", format="ratings")
    assert str(caught.value).count("r.csv") == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (APART[:3], r"shape \(3, 4\), not one matrix"),
        (np.stack([APART, APART]), "average people's first"),
        (np.arange(7.0), "7 numbers, which is no number of pairs"),
        (APART + np.diag([1.0, 0, 2, 0]), "diagonal does not tell"),
        (APART[:3, :3], "rates 3 items, and there are 4 names"),
    ],
)
def test_what_is_no_matrix(tmp_path: Path, values: np.ndarray, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        read_judgements(saved(tmp_path, values), items=NAMES, format="ratings")


def test_what_is_asked_amiss(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match=r"row 0 .*not 0 from itself"):
        read_judgements(saved(tmp_path, ALIKE), items=NAMES, scale="dissimilarity")
    with pytest.raises(LikemindError, match="scale 'up' is not"):
        read_judgements(saved(tmp_path, ALIKE), items=NAMES, scale="up")
    with pytest.raises(LikemindError, match="pass items"):
        read_judgements(saved(tmp_path, ALIKE))


def test_own_parquet(tmp_path: Path) -> None:
    RatingMatrix(NAMES, APART, "simulated").to_parquet(tmp_path / "r.parquet")
    assert rated(tmp_path / "r.parquet").source == "simulated"
    assert rated(tmp_path / "r.parquet", source="human").source == "human"


@needs_things
def test_real_ratings() -> None:
    names = [f"row {row}" for row in np.load(THINGS / "rdm48_rows.npy")]
    found = read(THINGS / "rdm48.npy", Request(items=names))
    assert isinstance(found.judgements, RatingMatrix)
    np.testing.assert_array_equal(found.judgements.dissimilarities, np.load(THINGS / "rdm48.npy"))
    assert found.notes == ["taken as dissimilarities, by the diagonal"]

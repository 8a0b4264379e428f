from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.errors import LikemindError
from likemind.pairs import ODD_OF_PAIR
from likemind.readers import alignet
from likemind.readers.alignet import to_alignet
from likemind.readers.judgements import Request, read, read_judgements
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from pathlib import Path

NAMES = np.array([["n01_1.JPEG", "n01_2.JPEG", "n02_é.JPEG"], ["n02_é.JPEG", "n03_1.JPEG", "n01_1.JPEG"]])
SIMILARITIES = np.array([[0.9, 0.2, 0.1], [0.1, 0.3, 0.2]], dtype=np.float32)


def write(folder: Path, **members: Any) -> Path:
    path = folder / "alignet_train.npz"
    whole = {"filenames": NAMES, "similarities": SIMILARITIES, "indices": np.zeros((2, 3), int)} | members
    np.savez(path, **{name: value for name, value in whole.items() if value is not None})
    return path


def ids(triplets: Triplets) -> list[list[str]]:
    return [[triplets.items[i] for i in row] for row in triplets.indices]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("block", [1, 2, 5, 1000])
@pytest.mark.parametrize("dtype", ["U", "S"])
def test_alignet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any, block: int, dtype: str) -> None:
    monkeypatch.setattr(alignet, "_BLOCK", block)
    names = NAMES if dtype == "U" else np.char.encode(NAMES, "utf-8")
    path = write(tmp_path, filenames=np.asarray(names, order=order), similarities=np.asarray(SIMILARITIES, order=order))
    found = read(path, Request())
    triplets = found.judgements
    assert isinstance(triplets, Triplets)
    assert ids(triplets) == NAMES.tolist()
    assert triplets.similarities is not None
    np.testing.assert_array_equal(triplets.similarities, SIMILARITIES)
    assert triplets.indices.dtype == np.int32
    assert triplets.choice is None
    assert triplets.source == "pseudo"
    assert found.notes == ["in 1 of 2 rows (50.00%) the pair 01 is not the most similar; kept as is"]


def test_compressed_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, filenames=NAMES[:1], similarities=SIMILARITIES[:1].astype(np.float64))
    found = read(path, Request())
    assert found.notes == ["in every row the pair 01 is the most similar, as it should be"]
    assert found.judgements.source == "pseudo"


def test_images_are_joined_by_file_name(tmp_path: Path) -> None:
    items = ["x/n02_é.png", "x/n01_2.png", "x/n01_1.png", "x/n03_1.png"]
    found = read_judgements(write(tmp_path), items=items)
    assert isinstance(found, Triplets)
    assert ids(found)[1] == ["x/n02_é.png", "x/n03_1.png", "x/n01_1.png"]
    with pytest.raises(LikemindError, match=r"names 1 items that items lacks \('n03_1.JPEG'\)"):
        read_judgements(write(tmp_path), items=items[:-1])
    twice = np.array([["a/n1.png", "b/n1.png", "n2.png"]] * 2)
    with pytest.raises(LikemindError, match="by file name, holds 'n1' twice"):
        read_judgements(write(tmp_path, filenames=twice), items=["n1", "n2"])


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"filenames": None}, "has no filenames .*'similarities', 'indices'"),
        ({"similarities": None}, "has no similarities"),
        ({"filenames": NAMES[:1]}, "1 rows of filenames and 2 of similarities"),
        ({"filenames": NAMES[:0], "similarities": SIMILARITIES[:0]}, "0 rows"),
        ({"filenames": NAMES[:, :2]}, r"filenames needs the shape \(n, 3\), got \(2, 2\)"),
        ({"filenames": np.zeros((2, 3))}, "filenames holds float64, not texts"),
        ({"filenames": NAMES.astype(object)}, "filenames holds Python objects"),
        ({"similarities": np.zeros((2, 3), int)}, "not floating numbers"),
        ({"similarities": np.full((2, 3), np.nan)}, "triplet 0 .*similarities is not finite"),
        ({"filenames": NAMES[:, [0, 0, 1]]}, "triplet 0 .*repeated"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    with pytest.raises(LikemindError, match=said) as caught:
        read_judgements(write(tmp_path, **members), format="alignet")
    assert str(caught.value).count("alignet_train.npz") == 1


def test_cut_anywhere(tmp_path: Path) -> None:
    data = write(tmp_path).read_bytes()
    for end in range(4, len(data) - 1, 31):
        (tmp_path / "cut.npz").write_bytes(data[:end])
        with pytest.raises(LikemindError, match=r"not a whole \.npz file"):
            read_judgements(tmp_path / "cut.npz")


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in (("filenames", NAMES), ("similarities", SIMILARITIES)):
            buffer = io.BytesIO()
            np.save(buffer, values)
            archive.writestr(f"{name}.npy", buffer.getvalue().replace(b"(2, 3), }", b"(2222222222, 3), }")[:-9])
    with pytest.raises(LikemindError, match="filenames is not as long as it says"):
        read_judgements(path)


@pytest.mark.parametrize("pair", range(3))
def test_a_writer_puts_the_odd_one_last(tmp_path: Path, pair: int) -> None:
    similarities = np.full((1, 3), 0.25)
    similarities[0, pair], similarities[0, (pair + 1) % 3] = 1.0, 0.5
    triplets = Triplets(["a", "b", "c", "d"], np.array([[3, 1, 0]]), similarities=similarities)
    to_alignet(triplets, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as written:
        assert written["filenames"][0, 2] == "dba"[ODD_OF_PAIR[pair]]
        assert written["similarities"].argmax(axis=1).tolist() == [0]
        assert written["filenames"].tolist() == np.array(triplets.items)[written["indices"]].tolist()


def _by_pair(triplets: Triplets) -> list[dict[frozenset[str], float]]:
    assert triplets.similarities is not None
    pairs = ((0, 1), (0, 2), (1, 2))
    return [
        {frozenset((names[a], names[b])): float(value) for (a, b), value in zip(pairs, row, strict=True)}
        for names, row in zip(ids(triplets), triplets.similarities, strict=True)
    ]


@given(st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 3, st.permutations(range(5))), min_size=1, max_size=8))
def test_what_is_written_reads_back(tmp_path: Path, rows: list[Any]) -> None:
    indices = np.array([row[3][:3] for row in rows])
    similarities = np.array([row[:3] for row in rows], dtype=np.float32)
    triplets = Triplets(["a", "b/ü.png", "c", "d", "e"], indices, similarities=similarities, source="pseudo")
    to_alignet(triplets, tmp_path / "out.npz")
    found = read(tmp_path / "out.npz", Request())
    assert isinstance(found.judgements, Triplets)
    assert _by_pair(found.judgements) == _by_pair(triplets)
    assert "in every row" in found.notes[0]


def test_only_similarities_are_written(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="no similarities"):
        to_alignet(Triplets(["a", "b", "c"], np.array([[0, 1, 2]])), tmp_path / "t.npz")
    whole = Triplets(["a", "b", "c\0"], np.array([[0, 1, 2]]), similarities=np.ones((1, 3)))
    with pytest.raises(LikemindError, match="NUL"):
        to_alignet(whole, tmp_path / "t.npz")
    fine = Triplets(["a", "b", "c"], np.array([[0, 1, 2]]), similarities=np.ones((1, 3)))
    with pytest.raises(LikemindError, match="cannot be written"):
        to_alignet(fine, tmp_path / "nowhere" / "t.npz")
    assert list(tmp_path.iterdir()) == []


PEAK = """
import resource, sys
from pathlib import Path
from likemind.readers.alignet import read_alignet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found, _ = read_alignet(Path(sys.argv[1]), None, None)
assert "torch" not in sys.modules
print(len(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_grows_by_few_bytes_a_row(tmp_path: Path) -> None:
    """Ten million rows must fit in 1 GB; the file of these alone has 100 MB."""
    items, n = 40_000, 300_000
    names = np.array([f"n{10_000_000 + k}_{k}.JPEG" for k in range(items)])
    rows = (np.arange(n)[:, None] * 7 + np.array([0, 1, 2]) * 11) % items
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        alignet._write(archive, "filenames", names, rows)
        alignet._write(archive, "similarities", np.ones((n, 3), np.float32))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "large.npz")], capture_output=True, text=True, check=True
    )
    read_rows, grown = map(int, done.stdout.split())
    assert read_rows == n
    assert grown < 60e6 + 60 * n, "60 MB for blocks, and 60 bytes a row"

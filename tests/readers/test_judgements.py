"""What a file is, what it holds, and the command that converts it."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import likemind
from likemind.cli import app, run
from likemind.errors import LikemindError
from likemind.readers.detect import detect
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.judgements import Reading, read_judgements, read_triplets
from likemind.readers.ratings import RatingMatrix
from likemind.readers.summary import summarise
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ant", "bee", "car", "dog"]
CSV = "left,middle,right,picked,who,secs\nant,bee,car,car,ann,1.5\nbee,ant,car,car,ann,2\nant,bee,car,ant,bob,900\n"
COLUMNS = {"item_0": "left", "item_1": "middle", "item_2": "right", "odd": "picked", "participant": "who"}


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("a.npy", np.array([[0, 1, 2], [1, 2, 3]]), "things-splits"),
        ("a.npy", np.eye(4), "ratings"),
        ("a.npy", np.random.default_rng(0).random((5, 4)), "embedding"),
        ("a.npy", np.random.default_rng(0).random((5, 3)), None),
        ("a.npy", np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]), None),
        ("a.npy", np.arange(6.0), None),
        ("a.txt", "0 1 2\n3 4 5\n", "things-splits"),
        ("a.txt", "0.5 1 2\n3 4 5\n", None),
        ("a.txt", "0.5 1 2 3\n3 4 5 4\n", "embedding"),
        ("a.txt", "0.5 1 2 3\n3 4 5\n", None),
        ("a.txt", "hello\nworld\n", None),
        ("a.txt", "", None),
        ("a.txt", "item_0\titem_1\n", None),
        ("a.csv", "image1\timage2\timage3\tchoice\n1\t2\t3\t1\n", "things"),
        ("a.csv", "item_0,item_1,item_2,odd\na,b,c,a\n", "csv"),
        ("a.csv", ",item_0,item_1,item_2,odd\n0,a,b,c,a\n", "csv"),
        ("a.tsv", "x\ty\n1\t2\n", "tsv"),
        ("a.csv", ",ant,bee\nant,0,1\nbee,1,0\n", "ratings"),
        ("a.csv", ",image_name,0,1\n0,ant.jpg,1,2\n", "embedding"),
        ("a.csv", b"\xff\xfe", "csv"),
        ("a.pkl", pickle.dumps({}), "levels"),
        ("a.mat", b"anything", "ratings"),
        ("a.zip", b"PK\x03\x04", None),
        ("a.jpg", b"\xff\xd8\xff", None),
    ],
)
def test_formats_are_known_by_content(tmp_path: Path, name: str, content: Any, format_: str | None) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    if format_ is None:
        with pytest.raises(LikemindError, match=r"pass format \(") as caught:
            detect(path)
        assert str(caught.value).count("\n") == 0
    else:
        assert detect(path) == format_


def test_what_needs_trials_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ratings = HumanEmbedding(NAMES, np.eye(4)), RatingMatrix(NAMES, 1 - np.eye(4))
    assert read_judgements(model) is model
    model.to_parquet(tmp_path / "e.parquet")
    ratings.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(LikemindError, match=r"e\.parquet holds an embedding of 4 items, .*triplets\(n\)"):
        read_triplets(tmp_path / "e.parquet")
    with pytest.raises(LikemindError, match="the judgements are ratings of 4 items"):
        read_triplets(ratings)
    store = tmp_path / "features"
    monkeypatch.setattr("likemind.teacher.teach.FeatureStore.load", lambda _: None)
    with pytest.raises(LikemindError, match=r"r\.parquet holds ratings of 4 items, not odd-one-out trials"):
        likemind.teach(store, tmp_path / "r.parquet", out=tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def people(rows: list[tuple[str, int, int]]) -> Triplets:
    """Answers (who, triplet 0 or 1, odd item) about ant, bee, car and ant, bee, dog."""
    items = np.array([[0, 1, 2], [0, 1, 3]])
    indices = np.array([np.roll(items[which], row) for row, (_, which, _) in enumerate(rows)])
    choice = [indices[row].tolist().index(odd) for row, (_, _, odd) in enumerate(rows)]
    return Triplets(NAMES, indices, choice=np.array(choice), participant=np.array([who for who, _, _ in rows]))


def test_summary_of_answers() -> None:
    rows = [("ann", 0, 2), ("ann", 0, 2), ("ann", 1, 3), ("ann", 1, 0), ("bob", 0, 2), ("bob", 0, 0), ("eve", 1, 3)]
    found = summarise(Reading(people(rows), "csv", []))
    assert (found.people, found.items, found.triplets, found.trials) == (3, 4, 2, 7)
    assert (found.repeats, found.self_consistency) == (3, pytest.approx(1 / 3))
    assert (found.ceiling, found.ceiling_triplets) == (pytest.approx((3 / 4 + 2 / 3) / 2), 2)
    # c c c a: each c has c c a beside it, the a has c c c. d a d: each d has d a, a tie; the a has d d.
    assert found.ceiling_left_out == pytest.approx((3 / 4 + (0.5 + 0.5 + 0) / 3) / 2)
    assert any("not corrected" in line for line in found.lines())


def test_single_answers_have_no_ceiling() -> None:
    found = summarise(Reading(people([("ann", 0, 2), ("bob", 1, 3)]), "csv", []))
    assert (found.ceiling, found.repeats, found.self_consistency) == (None, 0, None)


def test_people_who_always_press_the_same() -> None:
    indices = np.tile([[0, 1, 2]], (25, 1))
    who = np.array(["same"] * 10 + ["few"] * 5 + ["mixed"] * 10)
    choice = np.array([1] * 10 + [0] * 5 + [0, 1] * 5)
    found = summarise(Reading(Triplets(NAMES, indices, choice=choice, participant=who), "csv", []))
    assert found.same_position == 1
    assert found.same_position_people == ["same"]
    assert "people who always press the same position: 1 ('same')" in found.lines()[-1]
    assert found.items == 3


@pytest.mark.parametrize(
    ("shares", "warned"), [((0.34, 0.33, 0.33), False), ((0.5, 0.3, 0.2), True), ((0.0, 0.0, 1.0), False)]
)
def test_one_position_with_too_many_answers_is_told(shares: tuple[float, ...], warned: bool) -> None:
    """All at one position is a file's convention: the odd one last."""
    choice = np.repeat(np.arange(3), np.round(np.array(shares) * 1000).astype(int))
    answers = Triplets(NAMES, np.tile([[0, 1, 2]], (1000, 1)), choice=choice)
    notes = ["read so"]
    found = summarise(Reading(answers, "csv", notes))
    assert notes == ["read so"]
    assert found.notes[0] == "read so"
    assert any("50.0% of all answers are at position 0" in line for line in found.lines()) == warned
    assert len(found.notes) == 1 + warned


def test_a_few_answers_at_one_position_are_an_accident() -> None:
    answers = Triplets(NAMES, np.tile([[0, 1, 2]], (30, 1)), choice=np.repeat([0, 1, 2], [15, 8, 7]))
    assert summarise(Reading(answers, "csv", [])).notes == []


def test_other_summaries() -> None:
    drawn = summarise(Reading(HumanEmbedding(NAMES, np.eye(4)).triplets(4), "parquet", []))
    assert drawn.ceiling == pytest.approx(1 / 3)
    assert any("mean largest probability" in line for line in drawn.lines())
    model = summarise(Reading(HumanEmbedding(NAMES, np.eye(4)), "embedding", ["so"]))
    assert model.lines() == [": an embedding of 4 items in 4 dimensions (embedding, source human_model)", "  so"]
    assert summarise(Reading(RatingMatrix(NAMES, 1 - np.eye(4)), "ratings", [])).kind == "ratings"


def test_labels_are_counted() -> None:
    indices = np.array([[0, 1, 2], [2, 0, 1], [0, 1, 3]])
    found = summarise(Reading(Triplets(NAMES, indices, similarities=np.ones((3, 3)), source="pseudo"), "alignet", []))
    assert (found.triplets, found.trials, found.items, found.ceiling) == (2, 3, 4, None)
    assert summarise(Reading(Triplets(NAMES, np.zeros((0, 3), int)), "parquet", [])).triplets == 0


def test_many_rows_are_written_a_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("ann", 0, 2), ("bob", 1, 3), ("ann", 1, 0), ("bob", 0, 2), ("eve", 0, 0)]
    whole = people(rows)
    whole.to_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr("likemind.triplets._ROW_GROUP", 2)
    whole.to_parquet(tmp_path / "three.parquet")
    assert pq.ParquetFile(tmp_path / "three.parquet").num_row_groups == 3
    one, three = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "three"))
    assert one.to_pylist() == three.to_pylist()
    assert one.schema.equals(three.schema, check_metadata=True)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        whole.to_parquet(tmp_path / "four.parquet")
    with pytest.raises(LikemindError, match=r"cannot be written \(No space left on device\): choose another --out"):
        likemind.judgements(tmp_path / "one.parquet", out=tmp_path / "four.parquet")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.parquet", "three.parquet"]


# --- the command


def command(*args: str | Path) -> int:
    return run(app, ["judgements", *map(str, args)])


def columns() -> list[str]:
    return [f"--column={ours}={theirs}" for ours, theirs in (COLUMNS | {"response_time": "secs"}).items()]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "answers.csv", tmp_path / "new" / "out.parquet"
    path.write_text(CSV)
    assert command(path, "--out", out, *columns()) == 0
    text = capsys.readouterr().out
    assert "2 people, 3 items, 1 different triplets, 3 trials (csv, source human)" in text
    assert "repeats within people: 1, answered alike 1.000" in text
    assert "response time: 1.50 to 900.00 s, median 2.00 s; 1 implausible, 0 missing" in text
    found = likemind.read_judgements(out)
    assert isinstance(found, Triplets)
    assert found.odd_items == ["car", "car", "ant"]
    assert command(path, "--out", out, *columns(), "--overwrite", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["people"], told["ceiling"], told["format"]) == (2, pytest.approx(2 / 3), "csv")
    assert [file.name for file in out.parent.iterdir()] == ["out.parquet"]


def test_command_with_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "e.npy", np.eye(4, 5))
    (tmp_path / "items.txt").write_text("\n".join(NAMES))
    out = tmp_path / "e.parquet"
    assert command(tmp_path / "e.npy", "--items", tmp_path / "items.txt", "--out", out) == 0
    assert "an embedding of 4 items in 5 dimensions" in capsys.readouterr().out
    assert isinstance(likemind.read_judgements(out), HumanEmbedding)


def test_mistakes_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "answers.csv", tmp_path / "out.parquet"
    path.write_text(CSV.replace("car,car,ann,2", "car,cow,ann,2"))
    for args, said in [
        ((path, "--out", out, *columns()), "triplet 1 (counting from 0): the odd one 'cow' is none of its items"),
        ((path, "--out", out), "no column item_0"),
        ((path, "--out", tmp_path / "out.csv"), "does not end in .parquet"),
        ((tmp_path / "gone.csv", "--out", out), "does not exist"),
        ((path, "--out", out, "--format", "levels"), "is not a whole pickle"),
        ((path, "--out", out, "--format", "nonsense"), "is not one of parquet"),
        ((path, "--out", out, "--column", "item_0"), "is not NAME=VALUE"),
    ]:
        assert command(*args) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["answers.csv"]


def test_what_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "answers.csv", tmp_path / "out.parquet"
    path.write_text(CSV)
    out.write_bytes(b"mine")
    assert command(path, "--out", out, *columns()) == 2
    assert "is there already" in capsys.readouterr().err
    path.write_text("left\n")
    assert command(path, "--out", out, *columns(), "--overwrite") == 2
    assert out.read_bytes() == b"mine"
    people([("ann", 0, 2)]).to_parquet(out)
    assert command(out, "--out", out, "--overwrite") == 2
    assert "is the file that is read" in capsys.readouterr().err
    (tmp_path / "folder.parquet").mkdir()
    assert command(path, "--out", tmp_path / "folder.parquet") == 2

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from likemind.errors import LikemindError
from likemind.evaluation.twoafc import TwoAlternatives, read_two_alternatives
from likemind.triplets import write_table

if TYPE_CHECKING:
    from pathlib import Path

IDS = [f"{kind}/{k:03d}.png" for kind in ("ref", "distort") for k in range(60)]
HEADER = "id,left_vote,right_vote,ref_path,left_path,right_path,split,votes,is_imagenet"


def nights(path: Path, n: int = 40, votes: int = 1) -> Path:
    """A table as NIGHTS has it: votes are shares, unanimous, of ``votes`` people."""
    lines = [HEADER]
    for k in range(n):
        left = int(k % 3 > 0)
        split = "test" if k % 4 else "train"
        lines.append(
            f"{k},{left},{1 - left},ref/{k:03d}.png,distort/{k:03d}.png,distort/{k + 1:03d}.png,{split},6,False"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_layout_of_nights(tmp_path: Path) -> None:
    found = read_two_alternatives(nights(tmp_path / "data.csv"), IDS)
    kept = [k for k in range(40) if k % 4]
    assert found.rows.tolist() == [[k, 60 + k, 61 + k] for k in kept]
    assert found.left.tolist() == [float(k % 3 > 0) for k in kept]
    assert found.ceiling == 1.0
    names = ("ref_path", "left_path", "right_path")
    columns = {name: [IDS[row] for row in found.rows[:, k]] for k, name in enumerate(names)}
    columns |= {"left_vote": [3] * len(kept), "right_vote": [1] * len(kept)}
    write_table(tmp_path / "data.parquet", pa.table(columns))
    same = read_two_alternatives(tmp_path / "data.parquet", IDS)
    np.testing.assert_array_equal(same.rows, found.rows)
    assert set(same.left) == {0.75}
    assert (same.ceiling, same.source, found.source) == (0.75, "human", "human")
    table = pa.table(columns).replace_schema_metadata({"likemind.source": "simulated"})
    write_table(tmp_path / "data.parquet", table)
    assert read_two_alternatives(tmp_path / "data.parquet", IDS).source == "simulated"


def test_the_score_is_a_slow_loop_and_ties_are_wrong() -> None:
    rng = np.random.default_rng(0)
    rows, embedding = np.stack([rng.choice(30, 3, replace=False) for _ in range(50)]), rng.normal(size=(30, 5))
    judged = TwoAlternatives(rows, rng.random(50), np.ones(50))
    total = 0.0
    for (reference, left, right), share in zip(rows.tolist(), judged.left, strict=True):
        near = sum(x * y for x, y in zip(embedding[reference], embedding[left], strict=True))
        far = sum(x * y for x, y in zip(embedding[reference], embedding[right], strict=True))
        total += share if near > far else 1 - share
    for kind in ("clustered", "independent"):
        found = judged.score(embedding, 0, kind)  # type: ignore[arg-type]
        assert found.value == pytest.approx(total / 50)
        assert found.n == 50
        low, high = found.interval
        assert low < found.value < high
        assert judged.score(np.ones((30, 4)), 0, kind).value == 0.0  # type: ignore[arg-type]
    knows = np.zeros((30, 3))
    knows[:, 0] = 1
    sure = TwoAlternatives(np.array([[0, 1, 2]]), np.array([1.0]), np.array([1.0]))
    knows[2] = [0, 1, 0]
    assert sure.score(knows, 0).value == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("left_vote", "left"), "has no rows, or no column left_vote: lay it out as NIGHTS does"),
        (("ref/001.png", "ref/999.png"), "names 1 images that are no items ('ref/999.png'): add them"),
        (("1,1,0,", "1,many,0,"), "row 0 (counting from 0): 'many' is no number of votes; mend it"),
        (("1,1,0,", "1,-1,0,"), "row 0 (counting from 0): '-1' is no number of votes; mend it"),
        (("1,1,0,", "1,0,0,"), "row 0 (counting from 0) has no vote: remove it"),
    ],
)
def test_what_is_not_as_it_must_be(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    path = nights(tmp_path / "data.csv")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(LikemindError) as told:
        read_two_alternatives(path, IDS)
    assert words in str(told.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="cannot be read as CSV"):
        read_two_alternatives(tmp_path / "data.csv", IDS)
    (tmp_path / "empty.csv").write_text(HEADER + "\n")
    with pytest.raises(LikemindError, match="has no rows"):
        read_two_alternatives(tmp_path / "empty.csv", IDS)

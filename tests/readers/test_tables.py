from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from likemind.errors import LikemindError
from likemind.readers.judgements import read_judgements
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "item_0,item_1,item_2,choice\nant,bee,car,2\neel,ant,dog,0\n"


def write(folder: Path, text: str | bytes, name: str = "answers.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def ids(triplets: Triplets) -> list[list[str]]:
    return [[triplets.items[i] for i in row] for row in triplets.indices]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path: Path, bom: bytes, end: str) -> None:
    found = read_judgements(write(tmp_path, bom + PLAIN.replace("\n", end).encode()))
    assert ids(found) == [["ant", "bee", "car"], ["eel", "ant", "dog"]]
    assert found.odd_items == ["car", "eel"]
    assert found.source == "human"


def test_tsv_and_format(tmp_path: Path) -> None:
    tabs = PLAIN.replace(",", "\t")
    assert read_judgements(write(tmp_path, tabs, "a.tsv")).odd_items == ["car", "eel"]
    assert read_judgements(write(tmp_path, tabs, "a.txt"), format="tsv").odd_items == ["car", "eel"]
    with pytest.raises(LikemindError, match=r"neither \.parquet nor \.csv"):
        read_judgements(write(tmp_path, tabs, "a.txt"))


def test_renamed_columns(tmp_path: Path) -> None:
    text = "who,left,middle,right,picked,rt,kind,note\nann,x,y,z,y,1.5,class_border,hm\nbob,z,x,w,w,2,within_class,\n"
    found = read_judgements(
        write(tmp_path, text),
        source="simulated",
        item_0="left",
        item_1="middle",
        item_2="right",
        odd="picked",
        participant="who",
        response_time="rt",
        level="kind",
    )
    assert ids(found) == [["x", "y", "z"], ["z", "x", "w"]]
    assert found.odd_items == ["y", "w"]
    assert found.source == "simulated"
    assert found.response_time is not None
    assert found.response_time.tolist() == [1.5, 2.0]
    assert found.level is not None
    assert found.level.tolist() == ["class_border", "within_class"]


def test_columns_can_be_swapped_and_shadow_others(tmp_path: Path) -> None:
    text = "item_0,item_1,item_2,third,choice\na,b,ignored,c,0\n"
    found = read_judgements(write(tmp_path, text), item_0="item_1", item_1="item_0", item_2="third")
    assert ids(found) == [["b", "a", "c"]]
    assert found.odd_items == ["b"]


def test_participants_are_hashed_alike_and_not_in_clear(tmp_path: Path) -> None:
    text = "item_0,item_1,item_2,choice,participant\na,b,c,0,ann\na,b,c,1,007\na,b,c,1,ann\n"
    found = read_judgements(write(tmp_path, text)).participant
    assert found is not None
    assert found[0] == found[2] != found[1]
    assert not {"ann", "007", "7"} & set(found)


def test_ids_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    text = "item_0,item_1,item_2,odd\n007,1.50,2024-01-01,007\nNA,true,null,null\n"
    found = read_judgements(write(tmp_path, text))
    assert ids(found) == [["007", "1.50", "2024-01-01"], ["NA", "true", "null"]]
    assert found.odd_items == ["007", "null"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not a readable table"),
        (b"item_0,item_1,item_2,choice\n", "holds no judgements"),
        (b"item_0,item_1\na,b\n", r"no column item_2 \(it has item_0, item_1\).*item_2=NAME"),
        (b"a,b\n1\n", "not a readable table"),
        (PLAIN.replace("bee", "b\u00e9\u00e9").encode("latin-1"), "not a readable table"),
        (b"item_0,item_1,item_2,odd\na,b,c,a\na,b,c,d\n", r"triplet 1 .*'d' is none of its items"),
        (b"item_0,item_1,item_2,choice\na,b,c,0\na,a,c,1\n", r"answers\.csv: triplet 1 .*repeated"),
        (b"item_0,item_1,item_2,choice\na,b,c,0\na,,c,1\n", r"triplet 1 .*missing"),
        (b"item_0,item_1,item_2,choice\na,b,c,0\na,b,c,\n", r"triplet 1 .*choice is not a whole number"),
        (b"item_0,item_1,item_2,choice\na,b,c,0\na,b,c,x\n", r"triplet 1 .*choice is not a number"),
        (b"item_0,item_1,item_2,choice\na,b,c,0\na,b,c,7\n", r"triplet 1 .*not 0, 1 or 2"),
        (b"item_0,item_1,item_2,choice,odd\na,b,c,0,a\na,b,c,0,b\n", r"triplet 1 .*choice and odd differ"),
        (b"item_0,item_1,item_2,response_time\na,b,c,1\na,b,c,slow\n", r"triplet [01] .*response_time"),
        (b"item_0,item_1,item_2,level\na,b,c,somewhere\n", r"triplet 0 .*level is not one of"),
        (b"item_0,item_1,item_2,x,x\na,b,c,1,2\n", r"two columns named 'x'"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path: Path, text: bytes, said: str) -> None:
    with pytest.raises(LikemindError, match=said) as caught:
        read_judgements(write(tmp_path, text))
    assert str(caught.value).count("answers.csv") == 1


def test_names_of_columns_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    with pytest.raises(LikemindError, match=r"no column 'gone' \(it has item_0"):
        read_judgements(path, item_0="gone")
    with pytest.raises(LikemindError, match="there is no column 'colour' in judgements"):
        read_judgements(path, colour="choice")
    with pytest.raises(LikemindError, match="does not exist"):
        read_judgements(tmp_path / "nowhere.csv")
    with pytest.raises(LikemindError, match="source 'rumour'"):
        read_judgements(path, source="rumour")


def test_own_files_and_triplets_pass_through(tmp_path: Path) -> None:
    triplets = Triplets(
        ["a", "b", "c", "d"],
        np.array([[3, 0, 1]]),
        choice=np.array([1]),
        participant=np.array(["p"]),
        source="simulated",
    )
    assert read_judgements(triplets) is triplets
    triplets.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "labels").mkdir()
    triplets.save(tmp_path / "labels")
    for path in (tmp_path / "t.parquet", tmp_path / "labels"):
        found = read_judgements(path)
        assert ids(found) == [["d", "a", "b"]]
        assert found.odd_items == ["a"]
        assert found.source == "simulated"
        assert found.participant is not None
        assert found.participant.tolist() == ["p"]


def test_foreign_parquet(tmp_path: Path) -> None:
    table = pa.table({"l": [1, 2], "m": [2, 3], "r": [3, 1], "odd": [3, 2]})
    write_table(tmp_path / "t.parquet", table)
    found = read_judgements(tmp_path / "t.parquet", item_0="l", item_1="m", item_2="r")
    assert found.odd_items == ["3", "2"]
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(LikemindError, match="not a readable Parquet"):
        read_judgements(tmp_path / "t.parquet")

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
from collections import OrderedDict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from real_files import LEVELS, needs_levels

from likemind.errors import LikemindError
from likemind.readers import unpickle
from likemind.readers.judgements import Request, read, read_judgements
from likemind.readers.summary import summarise
from likemind.readers.unpickle import load_plain
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def trial(images: str, odd: int, kind: str = "exp_trial", **others: Any) -> dict[str, Any]:
    a, b, c = (f"n0{letter}_1.JPEG" for letter in images)
    shown = {"image1Path": a, "image2Path": b, "image3Path": c, "selected_image": (a, b, c)[odd]}
    return {**shown, "triplet_type": "within_class", "exp_trial_type": kind, "rt": 1500.0, **others}


PEOPLE = {
    "ann": [
        trial("abc", 0, "training"),
        trial("abc", 2),
        trial("bca", 1),
        trial("abd", 0, rt=900, triplet_type="class_border"),
    ],
    "bob": [trial("abc", 0), trial("abd", 0, "practice", rt=None), trial("cab", 2, rt=None)],
}


def write(folder: Path, people: Any = None, protocol: int = 4, name: str = "levels.pkl") -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(PEOPLE if people is None else people, protocol=protocol))
    return path


def changed(**others: Any) -> dict[str, Any]:
    return {"ann": [trial("abc", 0), trial("abc", 0, **others)]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_levels(tmp_path: Path, protocol: int) -> None:
    found = read_judgements(write(tmp_path, protocol=protocol), source="simulated")
    assert isinstance(found, Triplets)
    assert found.items == ["n0a_1.JPEG", "n0b_1.JPEG", "n0c_1.JPEG", "n0d_1.JPEG"]
    assert found.indices.tolist() == [[0, 1, 2], [1, 2, 0], [0, 1, 3], [0, 1, 2], [2, 0, 1]]
    assert found.choice is not None
    assert found.choice.tolist() == [2, 1, 0, 0, 2]
    assert found.response_time is not None
    np.testing.assert_allclose(found.response_time, [1.5, 1.5, 0.9, 1.5, np.nan])
    assert found.participant is not None
    ann, bob = (hashlib.sha256(name).hexdigest()[:16] for name in (b"ann", b"bob"))
    assert found.participant.tolist() == [ann] * 3 + [bob] * 2
    assert found.level is not None
    assert found.level.tolist() == ["within_class"] * 2 + ["class_border"] + ["within_class"] * 2
    assert found.source == "simulated"


def test_summary(tmp_path: Path) -> None:
    summary = summarise(read(write(tmp_path), Request()))
    assert (summary.people, summary.items, summary.triplets, summary.trials) == (2, 4, 2, 5)
    assert (summary.repeats, summary.self_consistency) == (2, 0.5)  # ann c, c; bob a, then another
    assert summary.levels == {"between_class": 0, "class_border": 1, "within_class": 4}
    assert summary.response_time is not None
    assert summary.response_time["missing"] == 1
    assert summary.notes == ["trials dropped by exp_trial_type: 1 practice, 1 training"]


def test_as_a_table(tmp_path: Path) -> None:
    rows = [{"participant_id": who, **one} for who, trials in PEOPLE.items() for one in trials]
    write_table(tmp_path / "levels.parquet", pa.Table.from_pylist(rows))
    found, theirs = read_judgements(tmp_path / "levels.parquet"), read_judgements(write(tmp_path))
    assert isinstance(found, Triplets)
    assert isinstance(theirs, Triplets)
    assert found.items == theirs.items
    np.testing.assert_array_equal(found.indices, theirs.indices)
    for name, column in theirs.columns().items():
        np.testing.assert_array_equal(found.columns()[name], column)


def test_images_are_joined_by_file_name(tmp_path: Path) -> None:
    ids = [f"train/n0{letter}/n0{letter}_1.jpg" for letter in "dcba"]
    found = read_judgements(write(tmp_path), items=ids)
    assert found.odd_items[0] == "train/n0c/n0c_1.jpg"
    with pytest.raises(LikemindError, match=r"names 1 items that items lacks \('n0a_1.JPEG'\)"):
        read_judgements(write(tmp_path), items=ids[:-1])
    with pytest.raises(LikemindError, match=r"several of items could be 'n0a_1.JPEG'"):
        read_judgements(write(tmp_path), items=[*ids, "val/n0a_1.png"])


def test_selected_image_without_its_ending(tmp_path: Path) -> None:
    found = read_judgements(write(tmp_path, changed(selected_image="n0b_1")))
    assert found.odd_items == ["n0a_1.JPEG", "n0b_1.JPEG"]


def test_times_that_look_like_seconds_are_told(tmp_path: Path) -> None:
    notes = read(write(tmp_path, {"ann": [trial("abc", 0, rt=1.5), trial("abd", 0, rt=2)]}), Request()).notes
    assert "are they seconds?" in notes[0]
    implausible = summarise(read(write(tmp_path, changed(rt=900_000)), Request())).response_time
    assert implausible is not None
    assert implausible["implausible"] == 1


def test_what_may_be_left_out(tmp_path: Path) -> None:
    bare = {name: value for name, value in trial("abc", 1).items() if name.startswith(("image", "selected"))}
    found = read_judgements(write(tmp_path, {7: [bare]}))
    assert isinstance(found, Triplets)
    assert set(found.columns()) == {"choice", "participant"}


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ([1, 2], "not a dictionary of participant"),
        ({"ann": {}}, "not a dictionary of participant"),
        ({"ann": [5]}, r"participant 0, trial 0 .*no dictionary"),
        ({(1, 2): [trial("abc", 0)]}, "participant 0 .* has no name"),
        ({}, "no trial whose exp_trial_type is 'exp_trial' .*none at all"),
        ({"ann": [trial("abc", 0, "training")]}, r"it has 'training'"),
        (changed(image2Path=None), r"participant 0, trial 1 .*no image2Path"),
        (changed(image2Path="n0a_1.JPEG"), r"triplet 1 .*repeated"),
        (changed(selected_image="n0z_1.JPEG"), r"trial 1 .*'n0z_1.JPEG' is none of its images"),
        (changed(rt="soon"), r"trial 1 .*rt is not a number"),
        (changed(rt=10**400), r"trial 1 .*rt is not a number"),
        (changed(triplet_type="somewhere"), r"triplet 1 .*level is not one of"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, people: Any, said: str) -> None:
    with pytest.raises(LikemindError, match=said) as caught:
        read_judgements(write(tmp_path, people))
    assert "ann" not in str(caught.value)
    assert str(caught.value).count("levels.pkl") == 1


# --- pickles


class Touch:
    """Unpickled by anyone else, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_pickle_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    path = write(tmp_path, {"ann": [trial("abc", 0), Touch(mark)]}, protocol)
    with pytest.raises(LikemindError, match=r"holds (posix|nt)\.mkdir, which could do harm: only builtin types"):
        load_plain(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "it would have been run"


def test_the_second_wall(tmp_path: Path) -> None:
    """What the check of the instructions would let through, the unpickler itself refuses."""
    for data, said in [
        (pickle.dumps(Touch(tmp_path / "mark")), r"it names (posix|nt)\.mkdir"),
        (b"Pname\n.", "it names a persistent id"),
    ]:
        with pytest.raises(pickle.UnpicklingError, match=said):
            unpickle._PlainUnpickler(io.BytesIO(data)).load()
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Fraction(1, 2), "fractions.Fraction"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (np.float64(1), "numpy"),
        (np.zeros(2), "numpy"),
        (len, "builtins.len"),
        (complex(1, 2), "builtins.complex"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_only_builtin_values_are_read(tmp_path: Path, value: Any, named: str, protocol: int) -> None:
    with pytest.raises(LikemindError, match=named.replace("builtins", r"(builtins|__builtin__)")):
        load_plain(write(tmp_path, {"a": [value]}, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_builtin_values_are_read(tmp_path: Path, protocol: int) -> None:
    values = [None, True, 0, -5, 2**70, 1.5, "é", "x" * 300, (1,), (), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {"a": {}}]
    if protocol >= 3:
        values += [b"bytes", b"y" * 300]
    if protocol >= 4:
        values += [{1, 2}, frozenset([3])]
    if protocol >= 5:
        values += [bytearray(b"z")]
    again = load_plain(write(tmp_path, [*values, values], protocol))
    assert again == [*values, values]


def raw(folder: Path, data: bytes) -> Path:
    path = folder / "raw.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Pname\n.", "holds a persistent id"),
        (b"\x80\x04X\x01\x00\x00\x00aQ.", "holds a persistent id"),
        (b"\x80\x02\x82\x01.", "holds the instruction EXT1"),
        (b"(ios\nsystem\n.", "holds os.system"),
        (b"\x80\x04Nb.", "holds the instruction BUILD"),
        (b"\x80\x05\x97.", "holds the instruction NEXT_BUFFER"),
        (b"\x80\x04\x93.", r"holds \?\.\?"),
        (b"cos\nsys\x1b[2Jtem\n.", r"holds os.sys\\x1b\[2Jtem"),
        (b"", "not a whole pickle"),
        (b"\x80\x04", "not a whole pickle"),
        (b"\x80\x63]", "not a whole pickle"),
        (b"\x80\x04\xff", "not a whole pickle"),
        (b"\x80\x04.", "not a whole pickle"),
        (b"\x80\x04]s.", "not a whole pickle"),
        (b"\x80\x04}]]s.", "not a whole pickle"),  # a list as a key
        (b"\x80\x04h\x05.", "not a whole pickle"),  # nothing has that number
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "table of values is larger"),  # would take 16 GB
        (b"Np999999999\n.", "table of values is larger"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "not a whole pickle"),  # bytes that are not there
        (b"I" + b"9" * 5000 + b"\n.", "not a whole pickle"),
    ],
)
def test_hostile_pickles(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(LikemindError, match=said) as caught:
        load_plain(raw(tmp_path, data))
    assert len(str(caught.value).splitlines()) == 1


def test_cut_anywhere(tmp_path: Path) -> None:
    data = pickle.dumps(PEOPLE, protocol=5)
    for end in range(0, len(data) - 1, 7):
        with pytest.raises(LikemindError, match="not a whole pickle"):
            load_plain(raw(tmp_path, data[:end]))


def test_deep_nesting(tmp_path: Path) -> None:
    deep = b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b"."
    assert isinstance(load_plain(raw(tmp_path, deep)), list)
    with pytest.raises(LikemindError, match="not a dictionary of participant"):
        read_judgements(raw(tmp_path, deep))


def test_deep_tuples_are_refused_before_they_are_hashed(tmp_path: Path) -> None:
    """Hashing these ends Python itself."""
    deep = b"\x80\x04})" + b"\x85" * 3_000_000 + b"Ns."
    with pytest.raises(LikemindError, match="holds more than 10000 tuples"):
        load_plain(raw(tmp_path, deep))


def test_shared_lists_do_not_unfold(tmp_path: Path) -> None:
    trials = [trial("abc", 0)] * 5000
    with pytest.raises(LikemindError, match="unfolds to more trials than it has bytes"):
        read_judgements(write(tmp_path, dict.fromkeys(range(20_000), trials)))


# --- the file that has its layout


@needs_levels
def test_simulated_file() -> None:
    found = read(LEVELS / "levels_simulated.pkl", Request(source="simulated"))
    table = read_judgements(LEVELS / "levels_simulated.parquet", source="simulated")
    trials = found.judgements
    assert isinstance(trials, Triplets)
    assert isinstance(table, Triplets)
    assert trials.items == table.items
    for name, column in trials.columns().items():
        np.testing.assert_array_equal(column, table.columns()[name])
    summary = summarise(found)
    assert (summary.people, summary.trials, summary.triplets, summary.repeats) == (40, 12_000, 1200, 480)
    assert summary.levels == dict.fromkeys(("between_class", "class_border", "within_class"), 4000)
    assert summary.notes == ["trials dropped by exp_trial_type: 240 training"]
    assert summary.response_time is not None
    assert 0.5 < summary.response_time["low"] < summary.response_time["high"] < 12

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.choice import ODD_OF_PAIR, PAIRS
from likemind.errors import LikemindError
from likemind.triplets import LEVELS, SOURCES, Triplets, from_item_table, read_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = ["ant", "bee", "car", "dog", "eel"]
GOOD: dict[str, Any] = {
    "items": ITEMS,
    "indices": [[0, 1, 2], [3, 1, 4], [2, 0, 1]],
    "choice": [2, 0, 0],
    "probabilities": [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]],
    "similarities": [[3.0, 1.0, 1.0], [-1.0, 2.0, 0.0], [0.0, 0.5, 1.0]],
    "response_time": [0.5, float("nan"), 2.0],
    "participant": ["p1", None, "p2"],
    "level": ["between_class", "class_border", "within_class"],
    "source": "human_model",
}


def good(**changes: Any) -> Triplets:
    return Triplets(**(GOOD | changes))


def same(a: Triplets, b: Triplets) -> None:
    assert a.source == b.source
    assert [[a.items[i] for i in row] for row in a.indices] == [[b.items[i] for i in row] for row in b.indices]
    assert a.columns().keys() == b.columns().keys()
    for name, value in a.columns().items():
        np.testing.assert_array_equal(value, b.columns()[name], err_msg=name)


def row(number: int, value: Any, of: str) -> dict[str, Any]:
    changed = [list(r) if isinstance(r, list) else r for r in GOOD[of]]
    changed[number] = value
    return {of: changed}


MALFORMED = [
    (row(1, [0, -1, 2], "indices"), r"triplet 1 .*negative"),
    (row(2, [0, 1, 5], "indices"), r"triplet 2 .*beyond the 5 items"),
    (row(0, [4, 4, 2], "indices"), r"triplet 0 .*repeated"),
    (row(1, [4, 2, 4], "indices"), r"triplet 1 .*repeated"),
    (row(2, [1, 2, 2], "indices"), r"triplet 2 .*repeated"),
    (row(1, [0, float("nan"), 2], "indices"), r"triplet 1 .*NaN"),
    (row(1, [0, float("inf"), 2], "indices"), r"triplet 1 .*NaN"),
    (row(1, [0, 1.5, 2], "indices"), r"triplet 1 .*whole number"),
    (row(1, [0, 1], "indices"), r"indices has rows of different lengths"),
    ({"indices": [[0, 1], [1, 2]]}, r"shape \(n, 3\)"),
    ({"indices": [0, 1, 2]}, r"shape \(n, 3\)"),
    (row(1, ["a", "b", "c"], "indices"), r"whole numbers"),
    (row(1, 3, "choice"), r"triplet 1 .*not 0, 1 or 2"),
    (row(1, 258, "choice"), r"triplet 1 .*not 0, 1 or 2"),
    (row(2, -1, "choice"), r"triplet 2 .*not 0, 1 or 2"),
    (row(2, 0.5, "choice"), r"triplet 2 .*whole number"),
    (row(2, float("nan"), "choice"), r"triplet 2 .*whole number"),
    (row(2, None, "choice"), r"triplet 2 .*whole number"),
    (row(0, "left", "choice"), r"choice must be whole numbers"),
    ({"choice": [0, 1]}, r"choice needs the shape \(3,\), got \(2,\)"),
    ({"choice": 1}, r"choice needs the shape"),
    (row(1, [0.5, 0.5, 0.5], "probabilities"), r"triplet 1 .*sum to 1"),
    (row(1, [-0.5, 1.0, 0.5], "probabilities"), r"triplet 1 .*negative"),
    (row(2, [float("nan"), 1.0, 0.0], "probabilities"), r"triplet 2 .*not finite"),
    ({"probabilities": [1.0, 0.0, 0.0]}, r"probabilities needs the shape \(3, 3\)"),
    (row(0, ["a", "b", "c"], "probabilities"), r"triplet 0 .*not a number"),
    (row(1, [float("inf"), 1.0, 0.0], "similarities"), r"triplet 1 .*not finite"),
    (row(2, "soon", "response_time"), r"triplet 2 .*response_time is not a number"),
    (row(2, "elsewhere", "level"), r"triplet 2 .*level is not one of"),
    (row(0, None, "level"), r"triplet 0 .*level is not one of"),
    ({"participant": ["p"]}, r"participant needs the shape"),
    ({"source": "guessed"}, r"source 'guessed' is not one of"),
    ({"items": ["ant", "bee", "car", "ant", "eel"]}, r"'ant' twice"),
]


@pytest.mark.parametrize(("change", "said"), MALFORMED)
def test_malformed_input_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        good(**change)


def test_more_wrong_rows_are_counted() -> None:
    with pytest.raises(LikemindError, match=r"triplet 0 \(counting from 0\) \(and 2 more rows\)"):
        good(choice=[3, 4, 5])


def test_types_are_those_of_the_contract() -> None:
    triplets = good(indices=np.array(GOOD["indices"], dtype=np.float64), choice=np.array([2.0, 0.0, 0.0]))
    assert triplets.indices.dtype == np.int32
    assert triplets.choice is not None
    assert triplets.choice.dtype == np.int8
    assert triplets.odd_items == ["car", "dog", "car"]
    assert triplets.used_items == ITEMS
    assert len(triplets) == 3
    assert good(source=SOURCES[0]).source == "human"
    assert set(LEVELS) == set(GOOD["level"])


def test_no_choice_means_no_odd_items() -> None:
    with pytest.raises(LikemindError, match="hold no choice"):
        _ = good(choice=None).odd_items
    with pytest.raises(LikemindError, match="no choices or probabilities"):
        good(choice=None, probabilities=None).targets()


def test_rows_and_within() -> None:
    triplets = good()
    same(triplets.rows(np.array([True, False, True])), triplets.rows(np.array([0, 2])))
    assert triplets.rows(np.array([2])).odd_items == ["car"]
    inside = triplets.within(["car", "bee", "ant", "zebra"])
    assert len(inside) == 2
    assert inside.used_items == ["ant", "bee", "car"]
    assert len(triplets.within([])) == 0
    assert len(triplets.within([]).targets()[0]) == 0


def test_positions_in() -> None:
    ids = ["zebra", "eel", "dog", "car", "bee", "ant"]
    found = good().positions_in(ids, "the features")
    assert [[ids[p] for p in r] for r in found] == [[ITEMS[i] for i in r] for r in GOOD["indices"]]
    assert good().rows(np.array([0])).positions_in(["ant", "bee", "car"], "x").tolist() == [[0, 1, 2]]
    with pytest.raises(LikemindError, match=r"2 items that the features lacks \('dog', 'eel'\)"):
        good().positions_in(["ant", "bee", "car"], "the features")
    many = Triplets([f"i{n}" for n in range(9)], [[0, 1, 2], [3, 4, 5], [6, 7, 8]])  # type: ignore[arg-type]
    with pytest.raises(LikemindError, match=r"9 items .*'i4', …\)"):
        many.positions_in([], "x")


def test_round_trip_of_judgements(tmp_path: Path) -> None:
    good().to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.column_names[:3] == ["item_0", "item_1", "item_2"]
    same(from_item_table(table, None), good())
    assert from_item_table(table, "simulated").source == "simulated"


@pytest.mark.parametrize(
    "left_out", ["choice", "probabilities", "similarities", "response_time", "participant", "level"]
)
def test_round_trip_of_labels(tmp_path: Path, left_out: str) -> None:
    triplets = good(**{left_out: None})
    triplets.save(tmp_path)
    loaded = Triplets.load(tmp_path)
    assert list(loaded.items) == ITEMS
    assert loaded.indices.dtype == np.int32
    same(loaded, triplets)


def test_float32_labels_stay_float32(tmp_path: Path) -> None:
    good(probabilities=np.full((3, 3), 1 / 3, dtype=np.float32)).save(tmp_path)
    loaded = Triplets.load(tmp_path)
    assert loaded.probabilities is not None
    assert loaded.probabilities.dtype == np.float32


def test_damaged_files_are_said(tmp_path: Path) -> None:
    good().save(tmp_path)
    write_table(tmp_path / "items.parquet", pa.table({"name": ITEMS}))
    with pytest.raises(LikemindError, match=r"items\.parquet has no column id"):
        Triplets.load(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(LikemindError, match="not a readable Parquet"):
        Triplets.load(tmp_path)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(LikemindError, match="does not exist"):
        Triplets.load(tmp_path)
    table = pa.table({"item_0": ["a"], "item_1": ["b"], "item_2": ["c"], "probabilities_0": [1.0]})
    with pytest.raises(LikemindError, match="no column probabilities_1, probabilities_2"):
        from_item_table(table, None)


@pytest.mark.parametrize("hole", [None, ""])
def test_a_missing_item_is_named(hole: str | None) -> None:
    table = pa.table({"item_0": ["a", "a"], "item_1": ["b", hole], "item_2": ["c", "c"]})
    with pytest.raises(LikemindError, match=r"triplet 1 .*an item is missing"):
        from_item_table(table, None)


@st.composite
def judged(draw: st.DrawFn) -> Triplets:
    n = draw(st.integers(1, 12))
    indices = [draw(st.permutations(range(5)))[:3] for _ in range(n)]
    choice = [draw(st.integers(0, 2)) for _ in range(n)]
    return Triplets(ITEMS, np.array(indices), choice=np.array(choice), source="human")


def slow_targets(triplets: Triplets) -> dict[frozenset[str], tuple[dict[frozenset[str], float], int]]:
    """For each set of three items: the share of answers in which each pair was the most similar."""
    pairs: dict[frozenset[str], list[frozenset[str]]] = defaultdict(list)
    for indices, odd in zip(triplets.indices, triplets.odd_items, strict=True):
        three = frozenset(triplets.items[i] for i in indices)
        pairs[three].append(three - {odd})
    return {
        three: ({pair: found.count(pair) / len(found) for pair in found}, len(found)) for three, found in pairs.items()
    }


def fast_targets(triplets: Triplets) -> dict[frozenset[str], tuple[dict[frozenset[str], float], int]]:
    found = {}
    for indices, shares, answers in zip(*triplets.targets(), strict=True):
        ids = [triplets.items[i] for i in indices]
        by_pair = {frozenset((ids[a], ids[b])): float(p) for (a, b), p in zip(PAIRS, shares, strict=True) if p > 0}
        found[frozenset(ids)] = (by_pair, int(answers))
    return found


@given(judged())
def test_targets_against_a_dictionary(triplets: Triplets) -> None:
    indices, shares, answers = triplets.targets()
    assert (np.diff(indices, axis=1) > 0).all()
    np.testing.assert_allclose(shares.sum(1), 1)
    assert answers.sum() == len(triplets)
    expected = slow_targets(triplets)
    found = fast_targets(triplets)
    assert found.keys() == expected.keys()
    for three, (by_pair, count) in expected.items():
        assert found[three] == (pytest.approx(by_pair), count)


@given(judged(), st.data())
def test_permuting_positions_changes_neither_answers_nor_targets(triplets: Triplets, data: st.DataObject) -> None:
    order = np.array([data.draw(st.permutations([0, 1, 2])) for _ in range(len(triplets))])
    assert triplets.choice is not None
    turned = Triplets(
        ITEMS,
        np.take_along_axis(triplets.indices, order, axis=1),
        choice=(order == triplets.choice[:, None]).argmax(axis=1),
    )
    assert turned.odd_items == triplets.odd_items
    for before, after in zip(triplets.targets(), turned.targets(), strict=True):
        np.testing.assert_allclose(before, after)


@given(st.permutations([0, 1, 2]), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_permuting_positions_carries_probabilities_along(order: list[int], weights: list[float]) -> None:
    plain = np.array(weights) / sum(weights)
    of_pair = {frozenset(pair): p for pair, p in zip(PAIRS, plain, strict=True)}
    turned = [of_pair[frozenset((order[a], order[b]))] for a, b in PAIRS]
    indices, shares, answers = Triplets(ITEMS, np.array([order]), probabilities=np.array([turned])).targets()
    assert indices.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(shares, [plain])
    assert answers.tolist() == [1]


def test_a_choice_is_the_pair_without_it() -> None:
    for pair, odd in enumerate(ODD_OF_PAIR):
        shares = Triplets(ITEMS, np.array([[0, 1, 2]]), choice=np.array([odd])).targets()[1]
        assert shares.tolist() == [np.eye(3)[pair].tolist()]

"""BREEDS: the rule on trees small enough to cut by hand, and on the published files against published lists."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.datasets.breeds import FILES, NONLIVING, ROOT, TASKS, Hierarchy, Rule, Superclass, breeds, split
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

LIVING17 = {
    "salamander": ([27, 29], [26, 28]),
    "turtle": ([37, 34], [33, 35]),
    "lizard": ([41, 44], [47, 38]),
    "snake, serpent, ophidian": ([60, 57], [65, 61]),
    "spider": ([76, 72], [74, 77]),
    "grouse": ([81, 83], [82, 80]),
    "parrot": ([88, 90], [87, 89]),
    "crab": ([118, 120], [119, 121]),
    "dog, domestic dog, Canis familiaris": ([163, 154], [257, 157]),
    "wolf": ([272, 271], [270, 269]),
    "fox": ([280, 279], [277, 278]),
    "domestic cat, house cat, Felis domesticus, Felis catus": ([282, 285], [283, 284]),
    "bear": ([297, 295], [296, 294]),
    "beetle": ([305, 306], [302, 303]),
    "butterfly": ([325, 321], [324, 322]),
    "ape": ([368, 365], [366, 367]),
    "monkey": ([377, 380], [381, 379]),
}
"""As the authors' notebook prints them (``MadryLab/BREEDS-Benchmarks``)."""

PUBLISHED = {
    "entity13": "894e73cad525a95985416ed02cebddf50b21b64b557c877ab249defa3db76154",
    "entity30": "a59471c7098c339cfeb898ac3d7aaab29b0f23bfa09e42969277ccf97bacbeb1",
    "living17": "6b014337deb822cfcf5e41baaff463f0772dbaa2390d8f372f4adc7563fd9d4f",
    "nonliving26": "2d4a06d22208c6527174ab442e36d75902f4ff19cc83f371d7718c0a92150613",
}
"""SHA-256 of ``json.dumps([source, target])``, the lists of class numbers in ``LukasMut/gLocal``
(``downstream/fewshot/breeds_sets.py``)."""


def tree(shape: dict[str, list[str]], classes: list[str]) -> Hierarchy:
    """A tree below the root, from node → children."""
    edges = [(parent, child) for parent, children in shape.items() for child in children]
    return Hierarchy(edges, {wnid: number for number, wnid in enumerate(classes)}, {})


def zoo() -> Hierarchy:
    """One superclass: two cats, four dogs and a fox, at unequal depth."""
    return tree(
        {ROOT: ["pet"], "pet": ["cat", "dog", "fox"], "cat": ["c1", "c2"], "dog": ["hound", "d3", "d4"]}
        | {"hound": ["d1", "d2"]},
        ["c1", "c2", "d1", "d2", "d3", "d4", "fox"],
    )


def test_levels_are_the_longest_ways() -> None:
    found = tree({ROOT: ["a", "b"], "a": ["b", "x"], "b": ["y"]}, ["x", "y"])
    assert found.levels == {ROOT: 0, "a": 1, "b": 2, "x": 2, "y": 3}
    assert found.at_level(2) == ["b", "x"]
    assert found.at_level(2, "b") == ["b"]


def test_branches_without_classes_are_cut_off() -> None:
    found = tree({ROOT: ["a", "empty"], "a": ["x"], "empty": ["emptier"]}, ["x", "elsewhere"])
    assert found.classes == {"x": 0}
    assert found.children(ROOT) == ["a"]
    assert "empty" not in found.levels


def test_what_lies_below_a_class_belongs_to_it() -> None:
    found = tree({ROOT: ["a"], "a": ["x", "y"], "x": ["below"]}, ["x", "y", "below"])
    assert found.leaves("a") == ["x", "y"]
    assert found.leaves("x") == ["below", "x"]


def test_a_good_split_gives_kin_to_both_sides() -> None:
    (pet,) = split(zoo(), Rule(1, 6), "good")
    assert pet == Superclass("pet", "pet", ("d1", "d2", "c1"), ("d3", "d4", "c2"))


def test_a_bad_split_gives_kin_to_one_side() -> None:
    (pet,) = split(zoo(), Rule(1, 6), "bad")
    assert pet == Superclass("pet", "pet", ("d1", "d2", "d3"), ("c1", "c2", "fox"))


def test_a_bad_split_fills_up_from_what_was_left() -> None:
    found = tree(
        {ROOT: ["p"], "p": ["big", "one"], "big": ["b1", "b2", "b3", "b4", "b5"]}, ["b1", "b2", "b3", "b4", "b5", "one"]
    )
    (cut,) = split(found, Rule(1, 6), "bad")
    assert (cut.source, cut.target) == (("b1", "b2", "b3"), ("one", "b4", "b5"))


def test_an_only_child_is_passed_through() -> None:
    found = tree({ROOT: ["p"], "p": ["q"], "q": ["r"], "r": ["x", "y"]}, ["x", "y"])
    (cut,) = split(found, Rule(1, 2), "good")
    assert {*cut.source, *cut.target} == {"x", "y"}


def test_small_superclasses_are_left_out_and_unbalanced_ones_are_used_up() -> None:
    found = tree({ROOT: ["p", "q"], "p": ["a", "b", "c", "d", "e"], "q": ["x", "y", "z"]}, [*"abcdexyz"])
    assert [cut.wnid for cut in split(found, Rule(1, 4))] == ["p"]
    sizes = [len(cut.source) for cut in split(found, Rule(1, 2), balanced=False)]
    assert sizes == [2, 1]
    assert [len(cut.source) for cut in split(found, Rule(1, 2))] == [1, 1]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["rand", "good", "bad"]), st.sampled_from([2, 4, 6]))
def test_halves_are_equal_and_apart(seed: int, kind: str, subclasses: int) -> None:
    (pet,) = split(zoo(), Rule(1, subclasses), kind, seed=seed)  # type: ignore[arg-type]
    assert len(pet.source) == len(pet.target) == subclasses // 2
    assert len({*pet.source, *pet.target}) == subclasses
    assert {*pet.source, *pet.target} <= set(zoo().leaves("pet"))
    assert split(zoo(), Rule(1, subclasses), kind, seed=seed) == [pet]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "kind", "said"),
    [
        (Rule(1, 3), "rand", "3 subclasses cannot be halved"),
        (Rule(1, 0), "rand", "0 subclasses cannot be halved"),
        (Rule(1, 8), "rand", "no node at level 1 has 8 classes"),
        (Rule(9, 2, "pet"), "rand", "no node at level 9 below 'pet' has 2 classes"),
        (Rule(1, 2), "worse", "there is no split 'worse': choose one of rand, good, bad"),
    ],
)
def test_what_cannot_be_cut(rule: Rule, kind: str, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        split(zoo(), rule, kind)  # type: ignore[arg-type]


def test_halves_that_cannot_be_equal() -> None:
    five, three = [*"abcde"], [*"xyz"]
    odd = tree({ROOT: ["p"], "p": ["five", "three"], "five": five, "three": three}, five + three)
    with pytest.raises(LikemindError, match="'p' cannot be cut in two halves of 4 by 'good'"):
        split(odd, Rule(1, 8), "good")
    (cut,) = split(odd, Rule(1, 8), "bad")
    assert (cut.source, cut.target) == (("a", "b", "c", "d"), ("x", "y", "z", "e"))


def test_no_such_task() -> None:
    with pytest.raises(LikemindError, match="no BREEDS task 'living18': choose one of entity13"):
        breeds("living18", zoo())


def write(folder: Path, **changed: str) -> Path:
    text = {
        "class_hierarchy.txt": f"{ROOT} pet\npet cat\npet dog\n",
        "dataset_class_info.json": json.dumps([[0, "cat", "a cat"], [1, "dog", "a dog"], [2, "plane", "left out"]]),
        "node_names.txt": f"{ROOT}\tentity\npet\tpet, companion\n",
    } | {name.replace("__", "."): value for name, value in changed.items()}
    for name, content in text.items():
        (folder / name).write_text(content)
    return folder


def test_files_as_published(tmp_path: Path) -> None:
    found = Hierarchy.load(write(tmp_path))
    assert found.classes == {"cat": 0, "dog": 1}
    assert found.name("pet") == "pet, companion"
    assert found.name("cat") == "cat"
    assert Hierarchy.load(tmp_path, classes={"cat"}).classes == {"cat": 0}


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / FILES[2]).unlink()
    with pytest.raises(LikemindError, match=r"lacks 'node_names\.txt' of BREEDS' class hierarchy: fetch it"):
        Hierarchy.load(tmp_path)
    for name, text, said in [
        ("class_hierarchy__txt", f"{ROOT} pet extra\n", "is not two fields"),
        ("dataset_class_info__json", "{", "is not BREEDS' list"),
        ("dataset_class_info__json", '[["n1"]]', "is not BREEDS' list"),
        ("node_names__txt", "n1 without a tab\n", "is not two fields"),
        ("class_hierarchy__txt", f"{ROOT} a\na b\nb a\nb cat\n", "holds a circle"),
    ]:
        with pytest.raises(LikemindError, match=said):
            Hierarchy.load(write(tmp_path, **{name: text}))
    write(tmp_path)
    (tmp_path / FILES[0]).write_bytes(b"\xff\xfe\n")
    with pytest.raises(LikemindError, match="cannot be read"):
        Hierarchy.load(tmp_path)


def test_the_published_hierarchy(shared_data: Path) -> None:
    found = Hierarchy.load(shared_data / "breeds")
    assert len(found.classes) == 890
    assert [len(found.at_level(level)) for level in range(9)] == [1, 2, 10, 29, 128, 466, 591, 98, 3]
    assert found.name(NONLIVING) == "non-living thing"


def test_living17_is_the_published_list(shared_data: Path) -> None:
    found = Hierarchy.load(shared_data / "breeds")
    cut = breeds("living17", found)
    numbers = found.classes
    ours = {one.name: ([numbers[w] for w in one.source], [numbers[w] for w in one.target]) for one in cut}
    assert ours == LIVING17


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_the_published_list(task: str, shared_data: Path) -> None:
    found = Hierarchy.load(shared_data / "breeds")
    cut = breeds(task, found)
    sides = [
        [found.classes[w] for one in cut for w in one.source],
        [found.classes[w] for one in cut for w in one.target],
    ]
    assert hashlib.sha256(json.dumps(sides).encode()).hexdigest() == PUBLISHED[task]
    assert len(cut) == int(task[-2:])
    rule = TASKS[task]
    assert {len(one.source) for one in cut} == {rule.subclasses // 2}


def test_a_random_tree_of_the_notebook(shared_data: Path) -> None:
    """Two subclasses at level 2: the authors' notebook prints these pairs."""
    found = Hierarchy.load(shared_data / "breeds")
    pairs = {
        cut.name.split(",")[0]: (found.classes[cut.source[0]], found.classes[cut.target[0]])
        for cut in split(found, Rule(2, 2))
    }
    assert pairs["fungus"] == (995, 992)
    assert pairs["structure"] == (649, 634)
    assert pairs["food"] == (929, 946)
    assert pairs["furnishing"] == (423, 532)


def test_of_tiny_imagenets_classes(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "photos" / "tiny_imagenet.parquet", columns=["wnid"])
    classes = set(table["wnid"].to_pylist())
    whole, found = Hierarchy.load(shared_data / "breeds"), Hierarchy.load(shared_data / "breeds", classes=classes)
    assert len(found.classes) == 181
    assert all(found.levels[node] == whole.levels[node] for node in found.levels)

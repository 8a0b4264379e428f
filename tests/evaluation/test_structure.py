from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.metrics import adjusted_mutual_info_score

from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.evaluation.context import Context, Subject
from likemind.evaluation.on_labels import Structure
from likemind.evaluation.structure import (
    NEIGHBOURS,
    colour_of,
    common_depth,
    grouping,
    neighbours,
    same_colour,
    similarity_by,
)
from likemind.evaluation.tree import read_tree
from likemind.triplets import read_table, write_table

from .test_recorded import changed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# --- groups


@pytest.mark.parametrize("make", [lambda g: unit(np.eye(4)[g] + 0.01), lambda g: unit(np.eye(4)[3 - g] + 0.01)])
def test_groups_that_lie_together_score_one(make: Callable[[np.ndarray], np.ndarray]) -> None:
    g = np.repeat(np.arange(4), 10)
    found = grouping(make(g), [f"g{k}" for k in g], 0)
    assert found.value == pytest.approx(1)
    assert found.interval == (pytest.approx(1), pytest.approx(1))
    assert found.n == 40


def test_grouping_is_adjusted_for_chance_and_uses_as_many_clusters_as_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.cluster import KMeans

    seen: list[np.ndarray] = []
    real = KMeans.fit_predict
    monkeypatch.setattr(KMeans, "fit_predict", lambda self, rows: seen.append(real(self, rows)) or seen[-1])
    rng = np.random.default_rng(0)
    rows, names = unit(rng.normal(size=(90, 8))), [f"g{k}" for k in rng.integers(3, size=90)]
    found = grouping(rows, names, 0)
    assert found.value == pytest.approx(adjusted_mutual_info_score(names, seen[0]))
    assert len(set(seen[0].tolist())) == 3
    assert abs(found.value) < 0.1


# --- colour


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((0, 0, 0), (0, 0, 0)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_colours_are_those_of_the_standard(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(colour_of(Image.new("RGB", (9, 5), rgb)), lab, atol=0.05)


def test_white_paper_does_not_count() -> None:
    drawing = Image.new("RGB", (32, 32), (255, 255, 255))
    drawing.paste((255, 0, 0), (8, 8, 16, 16))
    np.testing.assert_allclose(colour_of(drawing), (53.24, 80.09, 67.20), atol=1)
    np.testing.assert_allclose(colour_of(Image.new("RGB", (4, 4), (255, 255, 255))), (100, 0, 0), atol=0.05)


def test_a_tenth_of_pairs_is_of_one_colour() -> None:
    colours = np.random.default_rng(0).normal(size=(40, 3))
    found = same_colour(colours)
    above = found[np.triu_indices(40, 1)]
    assert above.sum() == pytest.approx(0.1 * len(above), abs=1)
    apart = {pair: float(np.linalg.norm(colours[pair[0]] - colours[pair[1]])) for pair in combinations(range(40), 2)}
    nearest = sorted(apart, key=apart.__getitem__)[: int(above.sum())]
    assert all(found[pair] and found[pair[::-1]] for pair in nearest)


def test_neighbours_are_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    rows, wanted = unit(rng.normal(size=(30, 4))), rng.random((30, 30)) < 0.3
    wanted |= wanted.T
    share = []
    for k in range(30):
        others = [j for j in range(30) if j != k]
        near = sorted(others, key=lambda j: -float(rows[k].astype(float) @ rows[j].astype(float)))[:NEIGHBOURS]
        share.append(sum(wanted[k, j] for j in near) / NEIGHBOURS)
    found, chance = neighbours(rows, wanted, 0)
    assert (found.value, found.n) == (pytest.approx(np.mean(share)), 30)
    assert chance == pytest.approx(np.mean([wanted[a, b] for a, b in combinations(range(30), 2)]))


def test_the_lizard_and_the_leaf() -> None:
    """Two kinds of two colours: an embedding of colour has the wrong neighbours, one of kind the right ones."""
    kind, colour = np.repeat([0, 1], 20), np.tile([0, 1], 20)
    shares = {"colour": (colour[:, None] == colour) & (kind[:, None] != kind)}
    shares["meaning"] = (kind[:, None] == kind) & (colour[:, None] != colour)
    jitter = 0.05 * np.random.default_rng(0).normal(size=(40, 4))
    looks = unit(np.pad(np.eye(2)[colour] * 3, ((0, 0), (0, 2))) + jitter)
    means = unit(np.pad(np.eye(2)[kind] * 3, ((0, 0), (0, 2))) + jitter)
    by = {name: [neighbours(rows, wanted, 0)[0].value for rows in (looks, means)] for name, wanted in shares.items()}
    assert by["colour"][0] > 0.3 > by["colour"][1] == 0.0
    assert by["meaning"][1] > 0.3 > by["meaning"][0] == 0.0


# --- the tree


def test_depth_in_common_is_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    paths = [["root", *(f"{'x' * d}{rng.integers(2)}" for d in range(1, rng.integers(2, 5)))] for _ in range(15)]
    paths[3] = ["another", "x0"]
    found = common_depth(paths)
    for a, one in enumerate(paths):
        for b, other in enumerate(paths):
            depth = -1
            for x, y in zip(one, other, strict=False):
                if x != y:
                    break
                depth += 1
            assert found[a, b] == depth


def test_similarity_of_some_pairs_is_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    rows, some = unit(rng.normal(size=(12, 3))), rng.random((12, 12)) < 0.4
    some |= some.T
    found = similarity_by(rows, {"some": some}, 5)["some"]
    cosine = {(a, b): float(rows[a].astype(float) @ rows[b].astype(float)) for a, b in combinations(range(12), 2)}
    every, inside = list(cosine.values()), [value for pair, value in cosine.items() if some[pair]]
    assert found.value == pytest.approx((np.mean(inside) - np.mean(every)) / np.std(every))
    draw = np.random.default_rng([5, 12])
    counts = draw.multinomial(12, np.full(12, 1 / 12), size=200)[3]
    drawn = np.repeat(np.arange(12), counts)
    pairs = [(a, b) for a, b in combinations(drawn.tolist(), 2) if a != b]
    every = [float(rows[a].astype(float) @ rows[b].astype(float)) for a, b in pairs]
    inside = [value for value, pair in zip(every, pairs, strict=True) if some[pair]]
    assert found.replicates[3] == pytest.approx((np.mean(inside) - np.mean(every)) / np.std(every))


def test_a_constant_embedding_tells_no_level_from_another() -> None:
    some = np.arange(6)[:, None] // 2 == np.arange(6) // 2
    found = similarity_by(unit(np.ones((6, 3))), {"some": some}, 0)["some"]
    assert (found.value, *found.interval) == (0.0, 0.0, 0.0)


def test_trees_from_files(tmp_path: Path) -> None:
    (tmp_path / "tree.txt").write_text("entity animal\n\nanimal lizard\nplant leaf\nentity plant\nplant lizard\n")
    assert read_tree(tmp_path / "tree.txt") == {
        "animal": "entity",
        "lizard": "animal",
        "leaf": "plant",
        "plant": "entity",
    }
    (tmp_path / "tabs.txt").write_text("living thing\ttree frog\n")
    assert read_tree(tmp_path / "tabs.txt") == {"tree frog": "living thing"}
    for text, words in (("a b c\n", "line 1 is not “parent child”"), ("a b\nx\n", "line 2 is not")):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(LikemindError, match=words):
            read_tree(tmp_path / "bad.txt")
    with pytest.raises(LikemindError, match="cannot be read as text"):
        read_tree(tmp_path / "none.txt")


def test_the_hierarchy_of_breeds(shared_data: Path) -> None:
    parents = read_tree(shared_data / "breeds" / "class_hierarchy.txt")
    assert len(parents) > 1000
    name, depth = "n01440764", 0  # tench
    while name in parents:
        name, depth = parents[name], depth + 1
    assert depth > 3
    assert name == "n00001740"  # entity


# --- the part of the suite


def scores(data: EvaluationSet, rows: np.ndarray) -> dict[str, float]:
    context = Context(data, 0)
    subject = Subject(context, None, "backbone", rows, None, {})  # type: ignore[arg-type]
    return {one.metric.removeprefix("toys/heldout/"): one.estimate.value for one in Structure(context).score(subject)}


def test_an_embedding_of_meaning_and_one_of_noise(data: EvaluationSet) -> None:
    rng = np.random.default_rng(0)
    names = sorted({item.category for item in data.items})
    at = [names.index(item.category) for item in data.items]
    means = scores(data, unit(np.eye(len(names))[at] + 0.02 * rng.normal(size=(len(at), len(names)))))
    noise = scores(data, unit(rng.normal(size=(len(at), 6))))
    assert means["tree.within"] > 0.8 > 0.5 > abs(noise["tree.within"])
    assert means["tree.level0"] < -0.8
    assert means["neighbours.colour"] == 0.0
    assert means["neighbours.meaning"] > noise["neighbours.meaning"]
    assert set(means) == {"grouping.ami", "neighbours.colour", "neighbours.meaning", "tree.within", "tree.level0"}


def test_a_tree_of_one_s_own(data: EvaluationSet, tmp_path: Path) -> None:
    deep = changed(data, tmp_path / "data", tree="tree.txt", name="toys")
    lines = [f"root half-{k // 4}\nhalf-{k // 4} quarter-{k // 2}\nquarter-{k // 2} category-{k}" for k in range(8)]
    (deep.path / "tree.txt").write_text("\n".join(lines))
    assert EvaluationSet.load(deep.path).key != EvaluationSet.load(data.path).key
    rows = unit(np.random.default_rng(0).normal(size=(len(deep.items), 6)))
    two = scores(EvaluationSet.load(deep.path), rows)  # held-out categories 6 and 7, both of the last quarter
    assert {name for name in two if name.startswith("tree")} == {"tree.within", "tree.level2"}
    table = read_table(deep.path / "items.parquet")
    place = table.column_names.index("split")
    held = table.set_column(place, "split", pa.array(["heldout"] * table.num_rows, pa.string()))
    write_table(deep.path / "items.parquet", held)
    every = EvaluationSet.load(deep.path)
    at = [int(item.category[-1]) for item in every.items]
    along = [[k // 4 == 0, k // 4 == 1, *(k // 2 == q for q in range(4)), *(k == c for c in range(8))] for k in at]
    found = scores(every, unit(np.array(along, dtype=float)))
    assert found["tree.spearman"] == pytest.approx(1.0)
    assert found["tree.within"] > found["tree.level2"] > found["tree.level1"] > found["tree.level0"]
    (deep.path / "tree.txt").write_text("root strange\n")
    with pytest.raises(LikemindError, match="holds none of the items' categories"):
        scores(EvaluationSet.load(deep.path), rows)
    (deep.path / "tree.txt").write_text("a category-6\ncategory-6 a\n")
    with pytest.raises(LikemindError, match="goes round in a circle"):
        scores(EvaluationSet.load(deep.path), rows)

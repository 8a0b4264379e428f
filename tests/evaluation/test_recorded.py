"""Recorded answers and ratings about any items, few-shot tasks under another name, and items without a group."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from likemind.datasets.evaluation_set import EvaluationSet
from likemind.evaluation.against_people import Human
from likemind.evaluation.context import Context
from likemind.evaluation.suite import evaluate
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import Triplets, read_table, write_table

from .conftest import saved_backbone
from .test_suite import save_model, save_teacher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from likemind.evaluation.results import Results

NAMES = [*(f"category-{k}" for k in range(8)), "6-3.png", "0-1.png", "unicorn"]
"""Categories, single items, and something that nobody has a picture of."""

NEW = {
    "asked/inside/accuracy": "human",
    "modelled/inside/accuracy": "human_model",
    "rated/inside/rsa.spearman": "human",
    "rated/inside/rsa.pearson": "human",
    "guessed/inside/rsa.spearman": "simulated",
    "guessed/inside/rsa.pearson": "simulated",
}


def asked(n: int = 60) -> Triplets:
    rng = np.random.default_rng(4)
    indices = np.stack([rng.choice(len(NAMES), 3, replace=False) for _ in range(n)])
    return Triplets(NAMES, indices, choice=rng.integers(3, size=n), source="human")


def rated(source: Any = "human") -> RatingMatrix:
    places = np.random.default_rng(5).normal(size=(len(NAMES), 3))
    return RatingMatrix(NAMES, np.linalg.norm(places[:, None] - places, axis=2), source)


def changed(data: EvaluationSet, folder: Path, **changes: Any) -> EvaluationSet:
    """Return a copy of the data whose description says something else."""
    shutil.copytree(data.path, folder)
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return EvaluationSet.load(folder)


@dataclass
class Run:
    data: EvaluationSet
    out: Path
    results: Results


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    base = saved_backbone(place / "base")
    taught, aligned = save_teacher(place / "teacher", base), save_model(place / "aligned", base, seed=0)
    return {"base": base, "teacher": taught, "aligned": aligned}


@pytest.fixture(scope="module")
def full(data: EvaluationSet, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    """The data with two files of answers, two of ratings, and few-shot tasks of another name."""
    with_all = changed(
        data,
        tmp_path_factory.mktemp("full") / "data",
        tasks="squares/unseen",
        answers={"asked": "asked.parquet", "modelled": "modelled.parquet"},
        ratings={"rated": "rated.parquet", "guessed": "guessed.parquet"},
    )
    asked().to_parquet(with_all.path / "asked.parquet")
    three = Triplets(["7-0.png", "category-1", "2-2.png"], np.array([[0, 1, 2]] * 3), choice=np.array([0, 1, 2]))
    Triplets(three.items, three.indices, three.choice, source="human_model").to_parquet(
        with_all.path / "modelled.parquet"
    )
    rated().to_parquet(with_all.path / "rated.parquet")
    rated("simulated").to_parquet(with_all.path / "guessed.parquet")
    return with_all


@pytest.fixture(scope="module")
def run(models: dict[str, str], full: EvaluationSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "results"
    return Run(full, out, evaluate(models, data=full, out=out, suite="human,generalisation,structure"))


def slow_rows(rows: np.ndarray, data: EvaluationSet) -> dict[str, list[float]]:
    """Each name's embedding: the mean over its items, at unit length."""
    found = {}
    for name in NAMES:
        members = [row for row, item in zip(rows, data.items, strict=True) if name in (item.id, item.category)]
        if members:
            mean = [sum(map(float, column)) / len(members) for column in zip(*members, strict=True)]
            length = math.sqrt(sum(x * x for x in mean))
            found[name] = [x / length for x in mean]
    return found


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def layers(run: Run) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for name, rows in load_file(run.out / "embeddings.safetensors").items():
        model, _, layer = name.partition("@")
        found[model, layer] = rows
    assert len(found) == 5
    return found


def test_accuracy_on_recorded_answers_is_a_slow_loop(run: Run) -> None:
    """Categories are averaged, answers about what has no picture do not count, and the odd one must be people's."""
    judged = asked()
    for (model, layer), rows in layers(run).items():
        about, right = slow_rows(rows, run.data), []
        for indices, choice in zip(judged.indices, judged.choice, strict=True):  # type: ignore[arg-type]
            names = [NAMES[k] for k in indices]
            if "unicorn" not in names:
                pairs = {}
                for odd in range(3):
                    a, b = (about[names[k]] for k in range(3) if k != odd)
                    pairs[odd] = dot(a, b)
                right.append(max(pairs, key=pairs.__getitem__) == choice)
        score = run.results.score(model, f"asked/inside/accuracy@{layer}")
        assert score.value == pytest.approx(sum(right) / len(right))
        assert score.n == len(right) < len(judged)
        assert score.chance == pytest.approx(1 / 3)
        assert score.ceiling is not None  # a few triplets were asked again
        assert 0 < score.ceiling < 1
        assert score.higher_is_better
        assert score.low < score.value < score.high


def test_rsa_with_ratings_is_scipys(run: Run) -> None:
    people = rated()
    for (model, layer), rows in layers(run).items():
        about, ours, theirs = slow_rows(rows, run.data), [], []
        assert set(about) == set(NAMES) - {"unicorn"}
        for a, one in enumerate(NAMES):
            for b, other in enumerate(NAMES[:a]):
                if one in about:
                    ours.append(1 - dot(about[one], about[other]))
                    theirs.append(people.dissimilarities[a, b])
        score = run.results.score(model, f"rated/inside/rsa.spearman@{layer}")
        assert score.value == pytest.approx(spearmanr(ours, theirs).statistic, abs=1e-3)
        assert (score.n, score.chance, score.ceiling) == (len(NAMES) - 1, 0.0, None)
        assert score.low <= score.value <= score.high


def test_every_model_at_every_layer_and_whose_answers_they_are(run: Run) -> None:
    """The files say it, whatever the main answers are."""
    assert run.data.description.source == "simulated"
    for model, layer in layers(run):
        for metric, source in NEW.items():
            assert run.results.score(model, f"{metric}@{layer}").source == source
        assert run.results.score(model, f"toys/heldout/agreement.all@{layer}").source == "simulated"


def test_models_are_compared_on_them(run: Run) -> None:
    for metric in [*NEW, "squares/unseen/fewshot.k1", "squares/unseen/centroid.k5"]:
        found = [c for c in run.results.comparisons if c.metric.rpartition("@")[0] == metric]
        assert {(c.model, c.against, c.metric.rpartition("@")[2]) for c in found} == {
            ("teacher", "base", "teacher"),
            *(("aligned", one, layer) for one in ("base", "teacher") for layer in ("backbone", "head", "shipped")),
        }
        for c in found:
            layer = c.metric.rpartition("@")[2]
            against = {"base": "backbone", "teacher": "teacher"}[c.against]
            ours = run.results.score(c.model, f"{metric}@{layer}").value
            assert c.difference == pytest.approx(ours - run.results.score(c.against, f"{metric}@{against}").value)
            assert c.low <= c.difference <= c.high


def test_all_else_stays_as_it_is(run: Run, models: dict[str, str], data: EvaluationSet, tmp_path: Path) -> None:
    """Without these files and names there is nothing new; with them, few-shot has another name, and that is all."""
    assert (data.description.tasks, data.description.answers, data.description.ratings) == ("", {}, {})
    plain = evaluate(models, data=data, out=tmp_path / "r", suite="human,generalisation,structure")
    wanted = {}
    for score in plain.scores:
        named = score.metric
        if any(family in named for family in ("fewshot", "centroid", "knn", "probe")):
            named = named.replace("toys/heldout/", "squares/unseen/")
        wanted[score.model, named] = score.model_copy(update={"metric": named})
    found = {(score.model, score.metric): score for score in run.results.scores}
    new = {key for key in found if key[1].rpartition("@")[0] in NEW}
    assert len(new) == 5 * len(NEW)
    assert {key: score for key, score in found.items() if key not in new} == wanted


@pytest.mark.parametrize("suite", ["calibration", "generalisation", "structure"])
def test_they_belong_to_the_suite_about_people(
    full: EvaluationSet, models: dict[str, str], tmp_path: Path, suite: str
) -> None:
    results = evaluate({"base": models["base"]}, data=full, out=tmp_path / "r", suite=suite)
    assert results.scores
    assert not [score for score in results.scores if "/inside/" in score.metric]


def test_tasks_under_a_shift_keep_the_shift_s_name(full: EvaluationSet, models: dict[str, str], tmp_path: Path) -> None:
    results = evaluate({"base": models["base"]}, data=full, out=tmp_path / "r", suite="robustness")
    assert {score.metric.split("/fewshot")[0] for score in results.scores if "fewshot" in score.metric} == {"toys/grey"}


def recorded(data: EvaluationSet, rows: np.ndarray) -> dict[str, Any]:
    """What one embedding scores."""
    return {s.metric: s for s in Human(Context(data, 0))._recorded(rows)}


def test_ties_are_wrong(full: EvaluationSet) -> None:
    """So that an embedding that tells nothing apart scores 0 and not chance, at any width."""
    for row in (np.ones(4), np.random.default_rng(0).normal(size=301), np.zeros(5)):
        rows = np.tile(row / max(float(np.linalg.norm(row)), 1.0), (len(full.items), 1)).astype(np.float32)
        found = recorded(full, rows)
        assert set(found) == set(NEW)
        assert {s.estimate.value for s in found.values()} == {0.0}


def test_of_three_different_answers_to_one_triplet_one_is_right(full: EvaluationSet, run: Run) -> None:
    for rows in layers(run).values():
        found = recorded(full, rows)["modelled/inside/accuracy"].estimate
        assert (found.value, found.n) == (pytest.approx(1 / 3), 3)


def test_where_too_little_is_known_nothing_is_scored(data: EvaluationSet, tmp_path: Path) -> None:
    """No answer about what there is, no recorded choice, two things rated."""
    about = changed(
        data,
        tmp_path / "data",
        answers={"strange": "strange.parquet", "shares": "shares.parquet"},
        ratings={"two": "two.parquet"},
    )
    indices = np.array([[0, 1, 2]])
    Triplets(["category-1", "category-2", "unicorn"], indices, choice=np.array([0])).to_parquet(
        about.path / "strange.parquet"
    )
    shares = Triplets(["category-1", "category-2", "0-1.png"], indices, probabilities=np.array([[0.5, 0.25, 0.25]]))
    shares.to_parquet(about.path / "shares.parquet")
    RatingMatrix(["category-1", "0-0.png", "unicorn"], np.ones((3, 3)) - np.eye(3)).to_parquet(
        about.path / "two.parquet"
    )
    assert recorded(about, np.ones((len(about.items), 2), np.float32)) == {}


def regrouped(data: EvaluationSet, folder: Path, group: dict[str, str]) -> EvaluationSet:
    shutil.copytree(data.path, folder)
    table = read_table(folder / "items.parquet")
    place = table.column_names.index("group")
    groups = [group[name] for name in table.column("category").to_pylist()]
    write_table(folder / "items.parquet", table.set_column(place, "group", pa.array(groups, pa.string())))
    return EvaluationSet.load(folder)


def grouped(results: Results) -> list[int]:
    return [score.n for score in results.scores if "grouping" in score.metric]


def test_items_without_a_group_are_no_group(data: EvaluationSet, models: dict[str, str], tmp_path: Path) -> None:
    base = {"base": models["base"]}
    group = {f"category-{k}": f"g{k % 2}" for k in range(8)}
    whole = evaluate(base, data=regrouped(data, tmp_path / "a", group), out=tmp_path / "ra", suite="structure")
    assert grouped(whole) == [16]
    nameless = dict.fromkeys(group, "")
    for number, change in enumerate(({"category-6": ""}, nameless, dict.fromkeys(group, "all"))):
        about = regrouped(data, tmp_path / f"b{number}", group | change)
        assert not grouped(evaluate(base, data=about, out=tmp_path / f"rb{number}", suite="structure"))
    third = [item.id for item in data.select("heldout")][::3]
    about = regrouped(data, tmp_path / "c", group)
    table = read_table(about.path / "items.parquet")
    left = [
        "" if name in third else told
        for name, told in zip(*(table[c].to_pylist() for c in ("id", "group")), strict=True)
    ]
    place = table.column_names.index("group")
    write_table(about.path / "items.parquet", table.set_column(place, "group", pa.array(left, pa.string())))
    some = evaluate(base, data=about.path, out=tmp_path / "rc", suite="structure")
    assert grouped(some) == [16 - len(third)]

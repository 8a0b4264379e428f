from __future__ import annotations

import json
import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from likemind.artifacts import Artifact, read_run
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError
from likemind.evaluation import suite as module
from likemind.evaluation.models import open_models
from likemind.evaluation.odd_one_out import Trials, agreement, similarities
from likemind.evaluation.results import Results
from likemind.evaluation.suite import SUITES, evaluate
from likemind.student.model import AlignedModel, ModelConfig
from likemind.teacher.teacher import Teacher
from likemind.triplets import read_table

from .conftest import saved_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.datasets.evaluation_set import EvaluationSet

# dataset/split/metric[.level][.kK][.spearman…]@layer, with .before and .after for scores that depend on τ
METRIC = re.compile(
    r"toys/(heldout|grey)/"
    r"((agreement|agreement_dot|accuracy|majority)\.(all|between_class|class_border|within_class)"
    r"|entropy_rt(\.(between_class|class_border|within_class))?\.spearman"
    r"|(ece|ece_adaptive|brier|nll|risk_coverage)\.(before|after)|grouping\.ami|knn|probe"
    r"|(fewshot|centroid|fewshot_ece|fewshot_nll)\.k[15]|neighbours\.(colour|meaning)|tree\.(within|level\d|spearman))"
    r"@(backbone|head|shipped|teacher)"
)


def save_model(folder: Path, backbone: str, *, seed: int, shipped: str = "mix") -> str:
    loaded = load_backbone(backbone)
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(12, loaded.dim)).astype(np.float32)
    config = ModelConfig(shipped=shipped, beta=0.4, facts={"base": "tiny"})  # type: ignore[arg-type]
    centre, bias = rng.normal(size=loaded.dim).astype(np.float32) * 0.1, np.zeros(12, np.float32)
    AlignedModel(loaded, centre, config, weight, bias).save_pretrained(folder)
    return str(folder)


def save_teacher(folder: Path, backbone: str, fingerprint: str | None = None) -> str:
    loaded = load_backbone(backbone)
    weights = np.random.default_rng(2).normal(size=(loaded.dim, loaded.dim))
    teacher = Teacher.of(weights, np.zeros(loaded.dim), 0.0, 1.0, backbone=fingerprint or loaded.fingerprint)
    teacher.facts_ = {"backbone_name": backbone}
    with Artifact(folder, verb="teach", config={}, inputs={"backbone": teacher.backbone_}) as work:
        teacher.write(work.path)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    base = saved_backbone(place / "base")
    return {
        "base": base,
        "teacher": save_teacher(place / "teacher", base),
        "aligned": save_model(place / "aligned", base, seed=0),
    }


@pytest.fixture(scope="module")
def out(models: dict[str, str], data: EvaluationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("results") / "all"
    evaluate(models, data=data, out=where)
    return where


def stems(results: Results, model: str, layer: str) -> set[str]:
    return {s.metric.rpartition("@")[0] for s in results.scores if (s.model, s.layer) == (model, layer)}


def test_every_id_is_the_contracts(out: Path) -> None:
    results = Results.load(out)
    for score in results.scores:
        assert METRIC.fullmatch(score.metric), score.metric
        assert score.low <= score.high
        assert score.n > 0
        assert np.isfinite([score.value, score.low, score.high]).all()
    layers = {(s.model, s.layer) for s in results.scores}
    assert layers == {
        ("base", "backbone"),
        ("teacher", "teacher"),
        ("aligned", "backbone"),
        ("aligned", "head"),
        ("aligned", "shipped"),
    }
    first = stems(results, "base", "backbone")
    assert len(first) == 4 * 4 + 4 + 10 + (8 + 2) + (1 + 2 + 2) + (4 + 8)
    mixed = {stem for stem in first if "agreement_dot" not in stem}  # no dot products of a mix of unit rows
    assert all(stems(results, *layer) == (mixed if layer[1] == "shipped" else first) for layer in layers)
    assert len({(s.model, s.metric) for s in results.scores}) == len(results.scores)


def test_what_each_score_says_of_itself(out: Path) -> None:
    results = Results.load(out)

    def one(metric: str, model: str = "aligned", layer: str = "shipped") -> Any:
        return results.score(model, f"toys/{metric}@{layer}")

    assert one("heldout/agreement.all").chance == pytest.approx(1 / 3)
    assert one("heldout/agreement.all").source == "simulated"
    assert one("heldout/fewshot.k5").source == one("heldout/grouping.ami").source == "labels"
    assert one("heldout/fewshot.k5").chance == 0.5
    assert not one("heldout/ece.after").higher_is_better
    assert not one("heldout/nll.before").higher_is_better
    assert one("heldout/nll.before").temperature == 1.0
    tau = one("heldout/nll.after").temperature
    assert tau not in (None, 1.0)
    assert one("heldout/ece.after").temperature == one("heldout/entropy_rt.spearman").temperature == tau
    assert one("heldout/nll.after").ceiling <= min(one("heldout/nll.after").value, np.log(3))
    kinds = {layer: one("heldout/agreement.all", layer=layer).similarity for layer in ("backbone", "head", "shipped")}
    assert kinds == {"backbone": "cosine, centred", "head": "cosine", "shipped": "cosine, part centred"}
    assert one("heldout/agreement.all", "base", "backbone").similarity == "cosine"


def test_agreement_from_the_embeddings_that_are_kept(out: Path, data: EvaluationSet) -> None:
    results, rows = Results.load(out), load_file(out / "embeddings.safetensors")
    ids = [item.id for item in data.items]
    trials = Trials.of(data.judgements("heldout"), ids, "here")
    for name, values in rows.items():
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-4)
        model, _, layer = name.partition("@")
        found = agreement(similarities(values, trials), trials.people)
        score = results.score(model, f"toys/heldout/agreement.all@{layer}")
        assert score.value == pytest.approx(found.mean())
        assert score.ceiling == pytest.approx(trials.ceiling.mean())
        assert score.n == len(trials.triplets)
    assert set(rows) == {"base@backbone", "teacher@teacher", "aligned@backbone", "aligned@head", "aligned@shipped"}
    model = AlignedModel.from_pretrained(results.run["models"]["aligned"]["path"])
    np.testing.assert_allclose(model.encode(data.images()), rows["aligned@shipped"], atol=1e-5)


def test_choices_are_kept_row_by_row(out: Path, data: EvaluationSet) -> None:
    table = read_table(out / "choices.parquet").to_pylist()
    n = len(data.judgements("heldout").targets()[0])
    assert len(table) == 5 * n
    scored: dict[tuple[str, str], list[float]] = {}
    for row in table:
        p = [row[f"people_{k}"] for k in range(3)]
        assert sum(p) == pytest.approx(1, abs=1e-5)
        assert sum(row[f"after_{k}"] for k in range(3)) == pytest.approx(1, abs=1e-5)
        scored.setdefault((row["model"], row["layer"]), []).append(p[row["choice"]] if row["choice"] >= 0 else 0.0)
        assert row["response_time"] > 1
    results = Results.load(out)
    for (model, layer), values in scored.items():
        assert np.mean(values) == pytest.approx(
            results.score(model, f"toys/heldout/agreement.all@{layer}").value, abs=1e-6
        )


def test_who_is_compared_with_whom(out: Path) -> None:
    results = Results.load(out)
    pairs = {(c.model, c.against, c.metric.rpartition("@")[2]) for c in results.comparisons}
    assert pairs == {
        ("teacher", "base", "teacher"),
        *(("aligned", against, layer) for against in ("base", "teacher") for layer in ("backbone", "head", "shipped")),
    }
    found = results.comparison("aligned", "base", "toys/heldout/agreement.all@head")
    ours = results.score("aligned", "toys/heldout/agreement.all@head").value
    assert found.difference == pytest.approx(ours - results.score("base", "toys/heldout/agreement.all@backbone").value)
    assert found.low <= found.difference <= found.high
    with pytest.raises(LikemindError, match="hold no comparison of base against aligned"):
        results.comparison("base", "aligned", "toys/heldout/agreement.all@backbone")
    with pytest.raises(LikemindError, match=r"hold no toys/heldout/rsa@head of aligned"):
        results.score("aligned", "toys/heldout/rsa@head")


def test_a_model_twice_under_two_names_does_not_differ(
    models: dict[str, str], data: EvaluationSet, tmp_path: Path
) -> None:
    twice = {"one": models["aligned"], "two": models["aligned"]}
    results = evaluate(twice, data=data, out=tmp_path / "r", suite="human,generalisation")
    assert len(results.comparisons) > 20
    for c in results.comparisons:
        assert (c.difference, c.low, c.high, c.verdict) == (0.0, 0.0, 0.0, "no difference seen")


def test_order_decides_the_direction_of_comparisons_and_nothing_else(
    models: dict[str, str], data: EvaluationSet, out: Path, tmp_path: Path
) -> None:
    turned = dict(reversed(models.items()))
    with pytest.raises(LikemindError, match="--overwrite"):
        evaluate(turned, data=data, out=out)
    back = evaluate(turned, data=data, out=tmp_path / "r")
    first = Results.load(out)
    plain = {(s.model, s.metric): s for s in first.scores}
    assert {(s.model, s.metric): s for s in back.scores} == plain
    assert back.scores[0].model == "aligned"
    metric = "toys/heldout/agreement.all"
    theirs = first.comparison("aligned", "base", f"{metric}@backbone")
    ours = back.comparison("base", "aligned", f"{metric}@backbone")
    assert (ours.difference, ours.low, ours.high) == pytest.approx((-theirs.difference, -theirs.high, -theirs.low))


def test_the_same_is_skipped_and_another_refused(
    models: dict[str, str], data: EvaluationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    base = {"base": models["base"]}
    first = evaluate(base, data=data, out=tmp_path / "r", suite="generalisation")
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "likemind"):
        patch.setattr(module._Evaluation, "results", lambda *_: pytest.fail("evaluated again"))
        assert evaluate(base, data=data.path, out=tmp_path / "r", suite=["generalisation"]) == first
    assert "nothing to do" in caplog.text
    for change in ({"seed": 1}, {"suite": "structure"}, {"models": models}):
        with pytest.raises(LikemindError, match="--overwrite"):
            evaluate(**({"models": base, "data": data, "out": tmp_path / "r", "suite": "generalisation"} | change))
    evaluate(base, data=data, out=tmp_path / "r", suite="structure", overwrite=True)
    run = read_run(tmp_path / "r", verb="evaluate", verify=True)
    assert run["config"]["suite"] == ["structure"]
    assert not (tmp_path / "r" / "features").exists()
    assert evaluate(base, data=data, out=tmp_path / "s", suite="generalisation") == first


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        ("human", {"agreement", "agreement_dot", "accuracy", "majority", "entropy_rt"}),
        ("calibration", {"ece", "ece_adaptive", "brier", "nll", "risk_coverage"}),
        ("generalisation", {"fewshot", "centroid", "fewshot_ece", "fewshot_nll", "knn", "probe"}),
        ("structure", {"grouping", "neighbours", "tree"}),
    ],
)
def test_a_part_of_the_suite(
    models: dict[str, str], data: EvaluationSet, out: Path, tmp_path: Path, suite: str, wanted: set[str]
) -> None:
    results = evaluate({"base": models["base"]}, data=data, out=tmp_path / "r", suite=suite)
    kinds = {re.split(r"[./@]", s.metric.split("/", 2)[2])[0] for s in results.scores}
    assert kinds == wanted
    whole = Results.load(out)
    assert all(whole.score(s.model, s.metric) == s for s in results.scores)


def test_shifts_use_the_shifted_images(out: Path, data: EvaluationSet, models: dict[str, str], tmp_path: Path) -> None:
    results = evaluate({"base": models["base"]}, data=data, out=tmp_path / "r", suite="robustness")
    assert {s.metric.split("/")[1] for s in results.scores} == {"grey"}
    grey = results.score("base", "toys/grey/agreement.all@backbone")
    ids = [item.id for item in data.select("heldout")]
    from likemind.features.embed import embed_rows

    rows = embed_rows(data.images("grey").select(ids), range(len(ids)), load_backbone(models["base"]))[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    trials = Trials.of(data.judgements("heldout"), ids, "here")
    assert grey.value == pytest.approx(agreement(similarities(rows, trials), trials.people).mean(), abs=1e-9)
    assert grey.value != Results.load(out).score("base", "toys/heldout/agreement.all@backbone").value


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("humans", "no suite 'humans': choose all"),
        ("", "no suite ''"),
        ([], "no suite ''"),
        ("all,human", "no suite 'all'"),
    ],
)
def test_unknown_suites(models: dict[str, str], data: EvaluationSet, tmp_path: Path, suite: Any, words: str) -> None:
    with pytest.raises(LikemindError, match=words):
        evaluate(models, data=data, out=tmp_path / "r", suite=suite)
    assert len(SUITES) == 5


def test_models_that_cannot_be_scored(models: dict[str, str], data: EvaluationSet, tmp_path: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        ({}, "no model to evaluate"),
        ([], "no model to evaluate"),
        ({"a@b": models["base"]}, "cannot name a model: use a name without @"),
        ({"": models["base"]}, "cannot name a model"),
        ([models["base"], models["base"]], "two models are named 'base'"),
        ({"x": "no_such_network"}, "there is no backbone 'no_such_network'"),
        ({"x": str(tmp_path)}, "holds no backbone"),
        ({"x": save_teacher(tmp_path / "t", models["base"], "0" * 64)}, "comes from another backbone, layer or pre"),
    ]
    for given, words in wrong:
        with pytest.raises(LikemindError, match=words):
            evaluate(given, data=data, out=tmp_path / "r")
    assert not (tmp_path / "r.partial").exists()


def test_a_list_names_models_after_their_folders(models: dict[str, str]) -> None:
    opened = open_models(list(models.values()))
    assert [model.name for model in opened] == ["base", "teacher", "aligned"]
    assert [model.layers for model in opened] == [("backbone",), ("teacher",), ("backbone", "head", "shipped")]
    assert len({model.key for model in opened}) == 3


def test_a_models_key_follows_what_decides_its_embedding(models: dict[str, str], tmp_path: Path) -> None:
    keys = [open_models({"m": models["aligned"]})[0].key]
    keys.append(open_models({"m": save_model(tmp_path / "a", models["base"], seed=1)})[0].key)
    keys.append(open_models({"m": save_model(tmp_path / "b", models["base"], seed=0, shipped="head")})[0].key)
    assert len(set(keys)) == 3
    again = save_model(tmp_path / "c", models["base"], seed=0)
    about = json.loads((tmp_path / "c" / "likemind.json").read_text())
    (tmp_path / "c" / "likemind.json").write_text(json.dumps(about | {"facts": {"note": "written later"}}))
    assert open_models({"m": again})[0].key == keys[0]


def test_results_survive_the_file(out: Path, tmp_path: Path) -> None:
    results = Results.load(out)
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert Results.load(results) is results
    raw = json.loads((tmp_path / "results.json").read_text())
    assert set(raw) == {"schema", "run", "scores", "comparisons"}
    assert raw["schema"] == 1
    assert set(raw["scores"][0]) == {
        "model",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "chance",
        "ceiling",
        "ceiling_low",
        "higher_is_better",
        "source",
        "similarity",
        "temperature",
        "seed",
    }
    alone = {"model", "against", "metric", "difference", "low", "high", "n", "verdict"}
    assert set(raw["comparisons"][0]) == alone | {"p_value", "verdict_corrected"}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"schema": 2}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"scores": [raw["scores"][0] | {"value": "high"}]}, r"scores\.0\.value"),
    ]
    for change, where in changes:
        (tmp_path / "results.json").write_text(json.dumps(raw | change))
        with pytest.raises(LikemindError, match=rf"not a results file of schema 1 \({where}") as told:
            Results.load(tmp_path)
        assert "\n" not in str(told.value)
    with pytest.raises(LikemindError, match="does not exist"):
        Results.load(tmp_path / "nowhere.json")


def test_scores_are_found_and_told(out: Path) -> None:
    results = Results.load(out)
    found = list(results.find(metric="toys/heldout/agreement.all"))
    assert [(s.model, s.layer) for s in found] == [
        ("base", "backbone"),
        ("teacher", "teacher"),
        *(("aligned", layer) for layer in ("backbone", "head", "shipped")),
    ]
    assert {s.layer for s in results.find(model="aligned", layer="head")} == {"head"}
    assert list(results.find(metric="toys/heldout/agreement")) == []
    told = results.table()
    assert "source simulated" in told
    assert f"{results.score('teacher', 'toys/heldout/agreement.all@teacher').value:.3f}" in told


def test_a_moved_folder_is_the_same_run(models: dict[str, str], data: EvaluationSet, tmp_path: Path) -> None:
    moved = shutil.copytree(models["base"], tmp_path / "elsewhere")
    first = evaluate({"base": models["base"]}, data=data, out=tmp_path / "r", suite="structure")
    assert evaluate({"base": str(moved)}, data=data, out=tmp_path / "r", suite="structure") == first


def test_a_teacher_takes_the_backbone_that_stands_beside_it(
    models: dict[str, str], data: EvaluationSet, tmp_path: Path
) -> None:
    gone = shutil.copytree(models["base"], tmp_path / "gone")
    teacher = save_teacher(tmp_path / "teacher", str(gone))
    shutil.rmtree(gone)
    beside = evaluate({"teacher": teacher, "base": models["base"]}, data=data, out=tmp_path / "r", suite="structure")
    assert {score.model for score in beside.scores} == {"teacher", "base"}
    with pytest.raises(LikemindError, match="evaluate its base model beside it"):
        evaluate({"teacher": teacher}, data=data, out=tmp_path / "alone", suite="structure")


def test_results_name_their_data_from_where_they_stand(out: Path, data: EvaluationSet) -> None:
    """So that a report can be made from any folder, and of a run that was moved with its data."""
    assert (out / Results.load(out).run["data"]).resolve() == data.path.resolve()

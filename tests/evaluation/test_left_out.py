"""Missing and unreadable images, people who did not look, features that are kept, and tables for others."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.evaluation import pooled as module
from likemind.evaluation.results import Results
from likemind.evaluation.suite import evaluate
from likemind.triplets import read_table

from .conftest import saved_backbone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"base": saved_backbone(tmp_path_factory.mktemp("models") / "base")}


def copied(data: EvaluationSet, folder: Path) -> EvaluationSet:
    shutil.copytree(data.path, folder)
    return EvaluationSet.load(folder)


def test_missing_images_are_named_and_refused_unless_allowed(
    data: EvaluationSet, base: dict[str, str], tmp_path: Path
) -> None:
    some = copied(data, tmp_path / "data")
    for name in ("6-0.png", "0-1.png"):
        (some.path / "images" / name).unlink()
    (some.path / "grey" / "7-2.png").unlink()
    with pytest.raises(LikemindError, match=r"lacks the images of 3 items \('0-1.png', '6-0.png', '7-2.png'\)") as told:
        evaluate(base, data=some, out=tmp_path / "r")
    assert "--allow-missing" in str(told.value)
    assert not (tmp_path / "r").exists()
    with pytest.raises(LikemindError, match="lacks the images of 2 items"):
        evaluate(base, data=some, out=tmp_path / "r", suite="human")
    results = evaluate(base, data=some, out=tmp_path / "r", allow_missing=True)
    assert results.run["left_out"] == {"missing": ["0-1.png", "6-0.png", "7-2.png"], "unreadable": []}
    held = data.judgements("heldout")
    gone = [row for row in held.indices.tolist() if {held.items[k] for k in row} & {"6-0.png", "7-2.png"}]
    score = results.score("base", "toys/heldout/accuracy.all@backbone")
    assert score.n == len(held) - len(gone) < len(held)
    rows = load_file(tmp_path / "r" / "embeddings.safetensors")["base@backbone"]
    ids = [item.id for item in data.items]
    empty = [name for name, row in zip(ids, rows, strict=True) if not row.any()]
    assert empty == ["0-1.png", "6-0.png", "7-2.png"]
    judged = read_table(tmp_path / "r" / "choices.parquet")
    assert not {"6-0.png", "7-2.png"} & {name for k in range(3) for name in judged.column(f"item_{k}").to_pylist()}


def test_unreadable_images_stop_a_run_unless_skipped(data: EvaluationSet, base: dict[str, str], tmp_path: Path) -> None:
    some = copied(data, tmp_path / "data")
    (some.path / "images" / "6-1.png").write_bytes(b"nothing")
    with pytest.raises(LikemindError, match=r"6-1\.png"):
        evaluate(base, data=some, out=tmp_path / "r", suite="human,structure")
    skipped = evaluate(base, data=some, out=tmp_path / "r", suite="human,structure", skip_bad=True, overwrite=True)
    assert skipped.run["left_out"] == {"missing": [], "unreadable": ["6-1.png"]}
    (some.path / "images" / "6-1.png").unlink()
    missing = evaluate(base, data=some, out=tmp_path / "s", suite="human,structure", allow_missing=True)
    assert missing.scores == skipped.scores


def test_people_who_did_not_look_are_named_in_the_results(
    data: EvaluationSet, base: dict[str, str], tmp_path: Path
) -> None:
    some = copied(data, tmp_path / "data")
    held = data.judgements("heldout")
    assert held.choice is not None
    assert held.participant is not None
    choice = np.where(held.participant == "p4", 0, held.choice)
    replace(held, choice=choice).to_parquet(some.path / "heldout.parquet")
    results = evaluate(base, data=some, out=tmp_path / "r", suite="human")
    out = results.run["people"]["heldout"]["excluded"]
    assert [one["participant"] for one in out] == ["p4"]
    n = results.score("base", "toys/heldout/accuracy.all@backbone").n
    assert n == len(held) - out[0]["answers"]
    assert "validation" not in results.run["people"]
    everybody = np.array([f"q{k % 2}" for k in range(len(held))], dtype=object)
    nobody = replace(held, participant=everybody, choice=np.arange(len(held)) % 2)
    nobody.to_parquet(some.path / "heldout.parquet")
    with pytest.raises(LikemindError, match="no heldout judgement is left to score on: give more"):
        evaluate(base, data=some.path, out=tmp_path / "s", suite="human")


def test_features_are_kept_where_asked(
    data: EvaluationSet, base: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(base, data=data, out=tmp_path / "a", suite="human", features=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert not (tmp_path / "a" / "features").exists()
    calls = []
    real = module.embed
    monkeypatch.setattr(
        module, "embed", lambda *a, **k: calls.append((k["out"] / "run.json").exists()) or real(*a, **k)
    )
    again = evaluate(base, data=data, out=tmp_path / "b", suite="human", features=tmp_path / "kept")
    assert calls == [True]
    assert again.scores == first.scores


def test_tables_for_others_hold_every_number(data: EvaluationSet, base: dict[str, str], tmp_path: Path) -> None:
    two = {"base": base["base"], "=other|<b>": saved_backbone(tmp_path / "other", seed=5)}
    results = evaluate(two, data=data, out=tmp_path / "r", suite="human,structure")
    with (tmp_path / "r" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.scores)
    for row, score in zip(rows, results.scores, strict=True):
        assert row["model"].lstrip("'") == score.model
        assert row["model"][0] != "=", "no formula"
        assert (row["metric"], row["source"]) == (score.metric, score.source)
        assert float(row["value"]) == score.value
        assert row["ceiling"] == ("" if score.ceiling is None else str(score.ceiling))
    with (tmp_path / "r" / "comparisons.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict_corrected"] for row in rows] == [one.verdict_corrected for one in results.comparisons]
    page = (tmp_path / "r" / "results.md").read_text()
    assert "=other\\|\\<b\\>" in page
    for score in results.scores:
        assert f"| {score.metric} | {score.value:.3f}".replace("-", "−") in page.replace("-", "−")
    assert "`simulated`" in page
    assert json.loads((tmp_path / "r" / "run.json").read_text())["recipe_version"] == 2
    assert Results.load(tmp_path / "r") == results


def test_kinds_of_intervals(data: EvaluationSet, base: dict[str, str], tmp_path: Path) -> None:
    two = {"base": base["base"], "other": saved_backbone(tmp_path / "other", seed=5)}
    both = {
        kind: evaluate(two, data=data, out=tmp_path / kind, suite="human,calibration", intervals=kind)  # type: ignore[arg-type]
        for kind in ("clustered", "independent")
    }
    wide, narrow = both["clustered"], both["independent"]
    assert [one.value for one in wide.scores] == pytest.approx([one.value for one in narrow.scores])
    widths = [
        [one.high - one.low for one in results.scores if "agreement.all" in one.metric] for results in (wide, narrow)
    ]
    assert np.mean(widths[0]) > np.mean(widths[1])
    assert wide.run["intervals"] == "clustered"
    with pytest.raises(LikemindError, match="no 'narrow' intervals: choose clustered or independent"):
        evaluate(two, data=data, out=tmp_path / "x", intervals="narrow")  # type: ignore[arg-type]

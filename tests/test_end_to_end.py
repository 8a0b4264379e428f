"""The demo, for real: one process that does the whole job, and what must be true of what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from likemind.artifacts import read_run
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.evaluation.results import Comparison, Results
from likemind.features.embed import embed_rows
from likemind.images.collection import open_images
from likemind.student.model import AlignedModel

pytestmark = pytest.mark.slow

LEVELS = ("between_class", "class_border", "within_class")
AGREEMENT = "emoji/heldout/agreement.all@shipped"


@dataclass(frozen=True)
class Demo:
    """A finished run."""

    path: Path
    said: str
    results: Results

    def value(self, model: str, metric: str) -> float:
        return self.results.score(model, metric).value

    def against(self, other: str, metric: str) -> Comparison:
        return self.results.comparison("aligned", other, metric)


def run_demo(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "likemind", "demo", "--out", str(out), *more]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "2")
    return subprocess.run(
        command, env=os.environ | threads, cwd=out.parent, capture_output=True, text=True, check=False, timeout=1800
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    path = Path(os.environ.get("LIKEMIND_TEST_DEMO") or tmp_path_factory.mktemp("demo") / "run")
    done = run_demo(path)
    assert done.returncode == 0, done.stderr
    return Demo(path, done.stdout, Results.load(path))


def files(path: Path) -> dict[str, tuple[int, str]]:
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return {
        file.relative_to(path).as_posix(): (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in found
    }


# --- what it says


def test_what_it_says(demo: Demo) -> None:
    assert "The answers come from simulated observers" in demo.said
    assert f"Open {demo.path / 'report.html'}" in demo.said
    for model in ("base", "teacher", "control", "aligned"):
        assert re.search(rf"^{model}\s", demo.said, re.MULTILINE)
    assert f"{demo.value('aligned', AGREEMENT):.3f}" in demo.said


OF_LABELS = {"fewshot", "fewshot_ece", "fewshot_nll", "centroid", "knn", "probe", "grouping", "neighbours", "tree"}


def test_every_score_is_of_objects_that_nothing_has_seen(demo: Demo) -> None:
    scores = demo.results.scores
    assert {score.metric.split("/")[1] for score in scores} == {"heldout", "outline"}
    assert {score.source for score in scores} == {"simulated", "labels"}
    assert {score.metric.split("/")[0] for score in scores} == {"emoji"}
    for score in scores:
        measure = score.metric.split("/")[2].split("@")[0].split(".")[0]
        assert score.source == ("labels" if measure in OF_LABELS else "simulated"), score.metric
        assert np.isfinite([score.value, score.low, score.high]).all()
        assert score.low <= score.value <= score.high
        assert score.n > 0


def test_the_held_out_objects_were_in_no_training(demo: Demo) -> None:
    data = EvaluationSet.load(demo.path / "data")
    taught = set(data.judgements("train").used_items)
    held = {item.id for item in data.select("heldout")}
    seen = {item.id for item in data.select("validation")}
    assert len(held) >= 100
    assert len(seen) >= 50
    assert not taught & (held | seen)
    trained = read_run(demo.path / "features", verb="embed")
    assert trained["figures"]["images"] == len(data.select("train"))
    for name in ("labels", "aligned", "control"):
        run = read_run(demo.path / name)
        assert run["inputs"]["features"] == trained["key"]
    assert read_run(demo.path / "aligned")["figures"]["images"] == len(data.select("train"))
    assert set(data.judgements("heldout").used_items) <= held
    whole = {item.category for item in data.select(fewshot="heldout")}
    assert len(whole) >= 5
    assert not whole & {item.category for item in data.select("train")}


def test_every_model_has_its_layers(demo: Demo) -> None:
    layers: dict[str, set[str]] = {}
    for score in demo.results.scores:
        layers.setdefault(score.model, set()).add(score.layer)
    assert layers["base"] == {"backbone"}
    assert layers["teacher"] == {"teacher"}
    assert layers["control"] == layers["aligned"] == {"backbone", "head", "shipped"}
    for model, layer in [
        ("base", "backbone"),
        ("teacher", "teacher"),
        *(("aligned", n) for n in sorted(layers["aligned"])),
    ]:
        for metric in ("agreement.all", "fewshot.k1", "fewshot.k5", "grouping.ami", "ece.before", "ece.after"):
            assert demo.results.score(model, f"emoji/heldout/{metric}@{layer}")
        for metric in ("agreement.all", "fewshot.k5"):
            assert demo.results.score(model, f"emoji/outline/{metric}@{layer}")


# --- what it claims


def test_aligned_agrees_more_than_base(demo: Demo) -> None:
    overall = demo.against("base", AGREEMENT)
    assert overall.low > 0
    assert overall.verdict == "better"
    assert overall.difference == pytest.approx(
        demo.value("aligned", AGREEMENT) - demo.value("base", "emoji/heldout/agreement.all@backbone")
    )
    for level in LEVELS:
        metric = f"emoji/heldout/agreement.{level}@shipped"
        assert demo.against("base", metric).difference > 0, level


def test_the_backbone_itself_is_aligned(demo: Demo) -> None:
    assert demo.against("base", "emoji/heldout/agreement.all@backbone").low > 0


def test_it_is_the_answers_that_help_and_not_the_training(demo: Demo) -> None:
    assert demo.against("control", AGREEMENT).low > 0


def test_five_shot_is_kept(demo: Demo) -> None:
    assert demo.against("base", "emoji/heldout/fewshot.k5@shipped").difference > -0.01


def test_the_numbers_are_possible(demo: Demo) -> None:
    for model, layer in (("base", "backbone"), ("teacher", "teacher"), ("aligned", "shipped")):
        score = demo.results.score(model, f"emoji/heldout/agreement.all@{layer}")
        assert score.chance == pytest.approx(1 / 3)
        assert score.ceiling is not None
        assert score.chance < score.value < score.ceiling


# --- what it leaves


def test_the_layout(demo: Demo) -> None:
    names = {entry.name for entry in demo.path.iterdir()}
    assert {"report.html", "results.json", "teacher", "aligned", "control"} <= names
    assert not [name for name in names if name.endswith((".partial", ".tmp", ".replaced"))]
    assert (demo.path / "results.json").read_bytes() == (demo.path / "results/results.json").read_bytes()
    for name in ("aligned", "control"):
        assert {"backbone", "head.safetensors", "likemind.json", "README.md", "run.json"} <= {
            entry.name for entry in (demo.path / name).iterdir()
        }
        assert {entry.name for entry in (demo.path / name / "backbone").iterdir()} == {
            "config.json",
            "model.safetensors",
        }
    assert "simulated" in (demo.path / "teacher/README.md").read_text()
    assert json.loads((demo.path / "results.json").read_text())["schema"] == 1


def test_the_page_tells_the_numbers_and_that_they_are_simulated(demo: Demo) -> None:
    page = (demo.path / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert "simulated" in text
    numbers = set(re.findall(r"\d+\.\d+", text))
    for model, layer in (("base", "backbone"), ("aligned", "shipped"), ("control", "shipped"), ("teacher", "teacher")):
        for metric in ("agreement.all", "fewshot.k5"):
            value = demo.value(model, f"emoji/heldout/{metric}@{layer}")
            assert f"{100 * value:.1f}" in numbers, (model, metric)
    gain = demo.against("base", AGREEMENT)
    assert {f"{100 * value:.1f}" for value in (gain.difference, gain.low, gain.high)} <= numbers
    assert not re.search(r"""(?:src|href)\s*=\s*["']https?://[^"']+\.(?:js|css|png|woff2?)""", page)


def test_plain_timm_loads_the_backbone(demo: Demo, tmp_path: Path) -> None:
    """In a process in which Likemind cannot be imported."""
    model = AlignedModel.from_pretrained(demo.path / "aligned")
    images = open_images(demo.path / "data/images.parquet")
    some = images.select(images.ids[::100])
    recipe = model.backbone.preprocessing
    pixels = np.stack([recipe(some.read(k)).numpy() for k in range(len(some))])
    np.save(tmp_path / "pixels.npy", pixels)
    code = textwrap.dedent("""
        import sys
        sys.modules["likemind"] = None
        import json, numpy, timm, torch
        folder, work = sys.argv[1:]
        module = timm.create_model(f"local-dir:{folder}/backbone", pretrained=True, num_classes=0).eval()
        with torch.inference_mode():
            numpy.save(f"{work}/pooled.npy", module(torch.from_numpy(numpy.load(f"{work}/pixels.npy"))).numpy())
        data = timm.data.resolve_model_data_config(module)
        print(json.dumps([*data["input_size"], *data["mean"], *data["std"], sys.modules["likemind"]]))
    """)
    command = [sys.executable, "-c", code, str(demo.path / "aligned"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, recipe.size, recipe.size, *recipe.mean, *recipe.std, None]
    pooled, _ = embed_rows(some, range(len(some)), model.backbone)
    theirs = np.load(tmp_path / "pooled.npy")
    np.testing.assert_allclose(theirs, pooled, rtol=1e-4, atol=1e-5)
    base = AlignedModel.from_pretrained(demo.path / "base")
    before, _ = embed_rows(some, range(len(some)), base.backbone)
    assert np.abs(theirs - before).max() > 0.01


def test_the_scores_follow_from_the_saved_model(demo: Demo) -> None:
    """Agreement of the shipped embedding, computed anew from pictures and answers."""
    data = EvaluationSet.load(demo.path / "data")
    model = AlignedModel.from_pretrained(demo.path / "aligned")
    ids = [item.id for item in data.select("heldout")]
    rows = model.encode(data.images().select(ids))
    answers = data.judgements("heldout").within(ids)
    place = {name: row for row, name in enumerate(ids)}
    triplets, people, _ = answers.targets()
    where = np.array([place[name] for name in answers.items])[triplets]
    first, second, third = (rows[where[:, k]] for k in range(3))
    cosines = np.stack([(first * second).sum(1), (first * third).sum(1), (second * third).sum(1)], axis=1)
    agreement = people[np.arange(len(people)), cosines.argmax(axis=1)].mean()
    assert agreement == pytest.approx(demo.value("aligned", AGREEMENT), abs=2e-3)


# --- again


def test_a_second_run_does_nothing(demo: Demo) -> None:
    before = files(demo.path)
    done = run_demo(demo.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == demo.said
    assert "written" not in done.stderr
    assert done.stderr.count("unchanged, nothing to do") >= 10
    assert files(demo.path) == before


def test_the_page_without_pictures(demo: Demo, tmp_path: Path) -> None:
    page = tmp_path / "plain.html"
    command = [
        sys.executable,
        "-m",
        "likemind",
        "report",
        str(demo.path / "results"),
        "--no-pictures",
        "--out",
        str(page),
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
    assert len(page.read_bytes()) < (demo.path / "report.html").stat().st_size


def test_the_python_of_the_readme(demo: Demo, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(demo.path.resolve())
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "is the odd one out" in done.stdout


def test_the_results_of_the_readme_are_those_of_the_demo(demo: Demo) -> None:
    """Its table holds these numbers to within what another processor may change."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for model, layer in (("base", "backbone"), ("teacher", "teacher"), ("aligned", "shipped")):
        row = next(line for line in text.splitlines() if re.match(rf"\| \**{model}\** \| {layer} \|", line))
        told = float(re.sub(r"[*|]", " ", row).split()[2])
        assert told == pytest.approx(demo.value(model, f"emoji/heldout/agreement.all@{layer}"), abs=0.015)

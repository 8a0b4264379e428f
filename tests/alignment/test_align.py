from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from evaluation.conftest import saved_backbone, tiny_backbone
from likemind.alignment import align as module
from likemind.alignment import loop, trainer
from likemind.alignment.align import align
from likemind.alignment.known import groups
from likemind.alignment.precision import faster_precision
from likemind.alignment.recipe import rate
from likemind.alignment.trainee import Student
from likemind.artifacts import Artifact, read_json, read_run
from likemind.backbones.timm import load_backbone
from likemind.choice import choose, pair_similarities
from likemind.errors import LikemindError
from likemind.features.embed import embed, embed_rows
from likemind.pseudolabels.cluster import cluster
from likemind.student.model import AlignedModel
from likemind.teacher.teacher import Teacher

from .conftest import quick

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.alignment.recipe import Recipe

    from .conftest import World

WEIGHTS = ("backbone/model.safetensors", "head.safetensors", "likemind.json", "metrics.jsonl", "retention.json")


def run(world: World, out: Path, recipe: Recipe | str | None = None, **changes: Any) -> AlignedModel:
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features, "recipe": recipe or quick()}
    return align(world.images, world.backbone, out=out, **(given | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in WEIGHTS if (folder / name).exists()}


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing disturbed, with a checkpoint after each."""
    out = tmp_path_factory.mktemp("whole") / "m"
    run(world, out, quick(checkpoint_every=1))
    return out


def test_smoke_from_end_to_end(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = world.backbone.fingerprint
    with caplog.at_level(logging.INFO, "likemind"):
        model = run(world, tmp_path / "m", "smoke", validation=world.data)
    assert "shipped: " in caplog.text
    assert world.backbone.fingerprint == before
    assert all(value.grad is None for value in world.backbone.module.parameters())
    loaded = AlignedModel.from_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(loaded.encode(world.images), model.encode(world.images))
    told = read_run(tmp_path / "m", verb="align", verify=True)
    assert set(told["files"]) == {
        "README.md",
        "backbone/config.json",
        "backbone/model.safetensors",
        "head.safetensors",
        "likemind.json",
        "metrics.jsonl",
        "retention.json",
    }
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert set(lines[0]) == {"step", "loss", "triplets", "rows", "accuracy"}
    retention = read_json(tmp_path / "m" / "retention.json")
    assert retention["shipped"] in retention["candidates"]
    assert model.config.shipped == retention["shipped"]["shipped"]
    assert set(model.config.temperatures) == {"backbone", "head", "shipped"}
    assert all(value > 0 for value in model.config.temperatures.values())
    assert model.config.facts["licences"] == {"pictures": "CC0"}
    card = (tmp_path / "m" / "README.md").read_text()
    assert "from simulated observers and not from people" in card
    assert "pictures: CC0." in card
    assert told["figures"]["source"] == "simulated"
    if model.config.alpha == 1.0:
        moved = [
            (a - b).abs().max().item()
            for a, b in zip(model.backbone.module.parameters(), world.backbone.module.parameters(), strict=True)
        ]
        assert min(moved) > 0


def test_frozen_norms_keep_their_statistics(world: World, whole: Path) -> None:
    model = AlignedModel.from_pretrained(whole)
    before = dict(world.backbone.module.named_buffers())
    running = [name for name in before if "running" in name]
    assert len(running) > 4
    for name, value in model.backbone.module.named_buffers():
        assert torch.equal(value, before[name]), name
    assert not any(
        torch.equal(a, b)
        for a, b in zip(model.backbone.module.parameters(), world.backbone.module.parameters(), strict=True)
    )


def test_without_validation_the_trained_backbone_is_shipped(world: World, whole: Path) -> None:
    model = AlignedModel.from_pretrained(whole)
    assert (model.config.shipped, model.config.alpha, model.config.beta) == ("backbone", 1.0, 0.0)
    assert model.layers == ("backbone", "head", "shipped")
    assert read_json(whole / "retention.json") == {"base": None, "shipped": None, "candidates": None}
    assert model.card is not None
    assert "validation objects" not in model.card


@pytest.mark.parametrize("target", ["mixture", "paper"])
def test_weights_follow_the_published_chain(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """scale_by_adam → decay_to_init → −rate, written out in float64, on a loss whose gradient is θ + c."""
    recipe = quick(target=target, steps=7, pull=4.0, learning_rate=2e-2, head_learning_rate=5e-3, warmup=0.3)
    fixed: dict[str, torch.Tensor] = {}
    students: list[Student] = []

    def quadratic(student: Student, pooled: torch.Tensor, *_: Any) -> dict[str, torch.Tensor]:
        total = 0 * pooled.sum()
        for number, (name, value) in enumerate(student.learning.items()):
            generator = torch.Generator().manual_seed(number)
            c = fixed.setdefault(name, torch.randn(value.shape, generator=generator))
            total = total + (c * value).sum() + 0.5 * (value * value).sum()
        students[:] = [student]
        return {"loss": total}

    monkeypatch.setattr(trainer, "student_loss", quadratic)
    run(world, tmp_path / "m", recipe)
    (student,) = students
    assert any(name.startswith("head.") for name in fixed) == (target == "paper")
    for name, value in student.learning.items():
        first = student.start_weights[name].double()
        theta, m, v = first.clone(), torch.zeros_like(first), torch.zeros_like(first)
        peak = recipe.learning_rate if name.startswith("backbone.") else recipe.head_learning_rate
        for step in range(recipe.steps):
            gradient = theta + fixed[name].double()
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            adam = (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            theta = theta - peak * rate(step, recipe) * (adam + recipe.pull * (theta - first))
        assert (theta - first).abs().max() > 10 * 2e-5, name
        torch.testing.assert_close(value.detach().double(), theta, atol=2e-5, rtol=1e-5, msg=name)


class Stop(BaseException):
    """What a power cut is to Python."""


@pytest.mark.parametrize("stop", range(1, 7))
def test_resumed_after_any_checkpoint_it_ends_in_the_same_bits(
    world: World, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    real = loop.save_checkpoint

    def save(*args: Any) -> None:
        real(*args)
        if args[3].step == stop:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        with pytest.raises(Stop):
            run(world, tmp_path / "m", quick(checkpoint_every=1))
    assert (tmp_path / "m.partial" / "checkpoint.safetensors").exists()
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", lambda *args: steps.append(args[3].step) or real(*args))
        run(world, tmp_path / "m", quick(checkpoint_every=1))
    assert steps == list(range(stop + 1, 7))
    assert contents(tmp_path / "m") == contents(whole)


def test_how_often_checkpoints_are_written_does_not_matter(world: World, whole: Path, tmp_path: Path) -> None:
    run(world, tmp_path / "m", quick(checkpoint_every=4))
    ours, theirs = contents(tmp_path / "m"), contents(whole)
    for name in WEIGHTS[:2] + WEIGHTS[3:]:  # likemind.json holds the recipe
        assert ours[name] == theirs[name], name
    run(world, tmp_path / "seed", quick(checkpoint_every=4), seed=1)
    assert contents(tmp_path / "seed")[WEIGHTS[0]] != ours[WEIGHTS[0]]


DRIVER = textwrap.dedent("""
    import sys, time
    import torch
    torch.set_num_threads(1)
    from likemind.alignment import align as module, loop
    from likemind.alignment.recipe import resolve_recipe
    from likemind.images.collection import open_images
    real = loop.save_checkpoint
    def save(*args):
        real(*args)
        print(args[3].step, flush=True)
        time.sleep(float(sys.argv[6]))
    loop.save_checkpoint = save
    data, backbone, teacher, features, out = sys.argv[1:6]
    images = open_images(data).select([f"{c}-{k}.png" for c in range(4) for k in range(8)])
    recipe = resolve_recipe("smoke", {"precision": "float32"})
    module.align(images, backbone, teacher=teacher, features=features, out=out, recipe=recipe)
""")


def test_killed_in_training_it_ends_in_the_same_bits(world: World, tmp_path: Path) -> None:
    backbone = saved_backbone(tmp_path / "backbone")
    paths = [world.data.path / "images", backbone, world.place / "teacher", world.features.path]
    command = [sys.executable, "-c", DRIVER, *map(str, paths)]
    process = subprocess.Popen([*command, str(tmp_path / "m"), "60"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "2\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "m").exists()
    done = subprocess.run([*command, str(tmp_path / "m"), "0"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "6"]
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features, "recipe": quick()}
    with threadpool_limits(1):  # a plugin may have loaded BLAS before the environment could say so
        align(world.images, backbone, out=tmp_path / "whole", **given)
    assert contents(tmp_path / "m") == contents(tmp_path / "whole")
    assert not (tmp_path / "m.partial").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    world: World, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    real, calls = trainer.student_loss, []

    def loss(*args: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        parts = real(*args)
        return parts | {"loss": parts["loss"] * value} if len(calls) == 5 else parts

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "student_loss", loss)
        with pytest.raises(
            LikemindError,
            match=r"the loss is not finite at step 4; its images are '.*\.png', …: lower --set learning_rate",
        ):
            run(world, tmp_path / "m", quick())
    assert not (tmp_path / "m").exists()
    from safetensors import safe_open

    with safe_open(tmp_path / "m.partial" / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["standing"])["step"] == 4
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118
    run(world, tmp_path / "m", quick())
    assert contents(tmp_path / "m")[WEIGHTS[0]] == contents(whole)[WEIGHTS[0]]


def test_weights_that_are_not_finite_never_become_a_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.student_loss, []

    def loss(student: Student, *args: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        parts = real(student, *args)
        if len(calls) < 6:
            return parts
        zero = next(iter(student.learning.values())).sum() * 0
        return parts | {"loss": parts["loss"] + zero.sqrt()}  # a finite value whose gradient is not

    monkeypatch.setattr(trainer, "student_loss", loss)
    with pytest.raises(LikemindError, match="a weight is not finite at step 5"):
        run(world, tmp_path / "m", quick())
    assert not (tmp_path / "m").exists()


def test_a_damaged_or_foreign_checkpoint_is_said(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Stop

    monkeypatch.setattr(module, "_ship", stop)
    with pytest.raises(Stop):
        run(world, tmp_path / "m", quick())
    file = tmp_path / "m.partial" / "checkpoint.safetensors"
    whole = file.read_bytes()
    from safetensors import safe_open
    from safetensors.torch import load, save

    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    tensors = load(whole)
    fewer, narrow = dict(list(tensors.items())[1:]), {key: value.flatten()[:1] for key, value in tensors.items()}
    cases = [
        (whole[: len(whole) // 2], r"checkpoint\.safetensors is damaged"),
        (b"", r"checkpoint\.safetensors is damaged"),
        (save(tensors, metadata=about | {"standing": "{}x"}), r"checkpoint\.safetensors is damaged"),
        (save(fewer, metadata=about), "a checkpoint of other weights"),
        (save(narrow, metadata=about), "a checkpoint of other weights"),
        (save(tensors, metadata=about | {"backbone": "0" * 64}), "a checkpoint of another backbone"),
    ]
    for data, words in cases:
        file.write_bytes(data)
        with pytest.raises(LikemindError, match=words) as told:
            run(world, tmp_path / "m", quick())
        assert "\n" not in str(told.value)


def test_the_same_is_skipped_and_another_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(world, tmp_path / "m", quick(steps=1))
    monkeypatch.setattr(module, "train_rounds", lambda *_: pytest.fail("trained again"))
    with caplog.at_level(logging.INFO, "likemind"):
        run(world, tmp_path / "m", quick(steps=1))
    assert "nothing to do" in caplog.text
    changes: list[dict[str, Any]] = [
        {"recipe": quick(steps=2)},
        {"changes": {"pull": 0}},
        {"control": True},
        {"seed": 1},
        {"features": None},
        {"validation": world.data},
        {"triplets": world.labels},
        {"teacher": world.teacher.untransformed()},
    ]
    for change in changes:
        with pytest.raises(LikemindError, match="--overwrite"):
            run(world, tmp_path / "m", **({"recipe": quick(steps=1)} | change))


def agreement(model: AlignedModel, world: World) -> float:
    """Share of triplets on which the backbone's cosine picks what the teacher's picks."""
    rng = np.random.default_rng(0)
    triplets = torch.from_numpy(np.stack([rng.choice(32, 3, replace=False) for _ in range(800)]))
    taught = torch.from_numpy(world.known().taught).double()
    taught = taught / taught.norm(dim=1, keepdim=True)
    rows = torch.from_numpy(model.encode(world.images, layer="backbone")).double()
    ours, theirs = choose(pair_similarities(rows, triplets)), choose(pair_similarities(taught, triplets))
    return float((ours == theirs).double().mean())


@pytest.mark.parametrize(
    "changes", [{}, {"batching": "independent"}, {"target": "paper", "head": "random", "temperature": 10.0}]
)
def test_forty_steps_teach_the_backbone_what_the_teacher_sees(
    world: World, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = quick(steps=40, beta=1.0, pull=0.1, learning_rate=3e-3, checkpoint_every=40, **changes)
    model = run(world, tmp_path / "m", recipe)
    lines = [json.loads(line)["loss"] for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert np.mean(lines[-5:]) < 0.7 * np.mean(lines[:3])
    known = world.known()
    base = agreement(Student.start(world.backbone, known, recipe, 0).at(0.0), world)
    assert agreement(model, world) > base + 0.3 * (1 - base)


def test_the_pull_keeps_weights_near_their_start(world: World, tmp_path: Path) -> None:
    far = {}
    for pull in (0.0, 300.0):
        model = run(world, tmp_path / f"{pull}", quick(steps=20, pull=pull, learning_rate=3e-3, checkpoint_every=50))
        pairs = zip(model.backbone.module.parameters(), world.backbone.module.parameters(), strict=True)
        far[pull] = sum((a - b).square().sum().item() for a, b in pairs) ** 0.5
    assert far[300.0] < 0.7 * far[0.0]


def test_paper_target_with_labels_from_a_file(world: World, tmp_path: Path) -> None:
    recipe = quick(target="paper", batching="independent", head="random", temperature=10.0, triplets=16)
    model = align(world.images, world.backbone, triplets=world.labels, out=tmp_path / "m", recipe=recipe)
    assert model.head_weight is not None
    assert model.head_weight.shape == (1024, world.backbone.dim)
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"step", "loss", "accuracy"}] * 6
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(model.backbone.module.parameters(), world.backbone.module.parameters(), strict=True)
    ]
    assert min(moved) > 0


def test_a_control_is_not_trained_on_labels_with_human_signal_nor_the_other_way_round(
    world: World, tmp_path: Path
) -> None:
    recipe = quick(target="paper", batching="independent", head="random", temperature=10.0, triplets=16, steps=1)
    for labels, control in ((world.labels, True), (world.control_labels, False)):
        with pytest.raises(LikemindError, match=r"the labels were made with(out)? --control and this run is with"):
            align(world.images, world.backbone, triplets=labels, control=control, out=tmp_path / "m", recipe=recipe)
    model = align(
        world.images, world.backbone, triplets=world.control_labels, control=True, out=tmp_path / "m", recipe=recipe
    )
    assert model.config.facts["control"] is True
    assert model.card is not None
    assert "distilled without human signal" in model.card


def test_a_teacher_on_another_backbone(world: World, tmp_path: Path) -> None:
    other = tiny_backbone(5, "test_resnet")
    given: dict[str, Any] = {"teacher": world.teacher, "recipe": quick(), "validation": world.data}
    model = align(world.images, other, features=world.features, out=tmp_path / "m", **given)
    assert model.head_weight is None
    assert model.layers == ("backbone",)
    assert set(model.config.temperatures) == {"backbone"}
    rows = embed_rows(world.images, range(32), other)[0]
    np.testing.assert_allclose(model.centre, rows.mean(0), atol=1e-4)
    with pytest.raises(LikemindError, match="fitted on another backbone than the student's: pass --features"):
        align(world.images, other, out=tmp_path / "n", **given)
    wrong = embed(world.images, tiny_backbone(9), out=tmp_path / "wrong")
    with pytest.raises(LikemindError, match="another backbone, layer or preprocessing than the teacher"):
        align(world.images, other, features=wrong, out=tmp_path / "o", **given)


def test_labels_of_other_images_are_refused(world: World, tmp_path: Path) -> None:
    some = world.images.select(world.images.ids[:12])
    given: dict[str, Any] = {"triplets": world.labels, "out": tmp_path / "m"}
    fresh = quick(target="paper", batching="independent", head="random", temperature=10.0, triplets=16)
    with pytest.raises(LikemindError, match=r"the judgements name 20 items that the images .* lacks \('1-4\.png'"):
        align(some, world.backbone, recipe=fresh, **given)
    with pytest.raises(LikemindError, match=r"knows no cluster of .* images"):
        align(world.data.images(), world.backbone, teacher=world.teacher, recipe=quick(), ladder=False, **given)
    assert not (tmp_path / "m").exists()


def test_a_teacher_of_another_width_is_refused(world: World, tmp_path: Path) -> None:
    """One that does not say which backbone it was fitted on."""
    width = world.backbone.dim + 1
    odd = Teacher.of(np.eye(width), np.zeros(width), np.zeros(width), 1.0, penalty=0.1, backbone="")
    with Artifact(tmp_path / "odd", verb="teach", config={"made": "by hand"}, inputs={}) as work:
        odd.write(work.path)
    words = rf"the teacher maps features of width {width}, and test_efficientnet gives {width - 1}: pass the teacher"
    with pytest.raises(LikemindError, match=words):
        run(world, tmp_path / "m", teacher=tmp_path / "odd")
    assert not (tmp_path / "m").exists()


def test_a_layer_inside_the_network_is_refused(world: World, tmp_path: Path) -> None:
    inside = load_backbone(world.backbone, layer="blocks.2:mean")
    with pytest.raises(LikemindError, match=r"the layer 'blocks\.2:mean' cannot be aligned"):
        align(world.images, inside, teacher=world.teacher, out=tmp_path / "m", recipe=quick())


def test_labels_group_the_images_of_packed_batches(world: World) -> None:
    from likemind.pseudolabels.label import load_clusters

    known = world.known(triplets=world.labels)
    np.testing.assert_array_equal(known.clusters, load_clusters(world.labels, world.images.ids))
    assert len(set(world.known().clusters.tolist())) == 2  # a twelfth of the images
    found, positions = known.labels
    np.testing.assert_array_equal(np.array(world.images.ids)[positions], np.array(found.items)[found.indices])


@pytest.mark.parametrize("outliers", [1, 2, 5])
def test_outliers_among_few_images_do_not_leave_all_others_in_one_cluster(outliers: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(32, 8)).astype(np.float32)
    rows[:outliers] += 100 * np.eye(8, dtype=np.float32)[:outliers]
    assert min(cluster(rows, 2, seed=0).sizes) <= outliers
    for seed in range(4):
        found = groups(rows, seed)
        assert (np.bincount(found) > 1).sum() >= 2
        assert found.max() < 2 + outliers + 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"teacher": None}, "the mixture target and packed batches need a teacher"),
        ({"teacher": None, "changes": {"target": "paper"}}, "the mixture target and packed batches need a teacher"),
        (
            {"teacher": None, "changes": {"target": "paper", "batching": "independent"}},
            "pass --teacher, or --triplets, an output of `likemind label`",
        ),
        ({"changes": {"tuning": "head"}}, "has no head that learns: pass --set target=paper"),
        (
            {"teacher": None, "triplets": "labels", "changes": {"target": "paper", "batching": "independent"}},
            "a head that starts from the teacher's map needs a teacher",
        ),
        ({"recipe": "huge"}, "no recipe 'huge'"),
        ({"changes": {"step": 1}}, "recipe field 'step'"),
    ],
)
def test_what_does_not_fit_together(world: World, tmp_path: Path, given: dict[str, Any], words: str) -> None:
    if given.get("triplets"):
        given = given | {"triplets": world.labels}
    with pytest.raises(LikemindError, match=words):
        run(world, tmp_path / "m", **given)
    assert not (tmp_path / "m.partial").exists()


def test_both_precisions_in_one_process(world: World, tmp_path: Path) -> None:
    exact = run(world, tmp_path / "a", quick(steps=2))
    rough = run(world, tmp_path / "b", quick(steps=2, precision="bfloat16"))
    again = run(world, tmp_path / "c", quick(steps=2))
    assert contents(tmp_path / "a")[WEIGHTS[0]] == contents(tmp_path / "c")[WEIGHTS[0]]
    assert contents(tmp_path / "a")[WEIGHTS[0]] != contents(tmp_path / "b")[WEIGHTS[0]]
    assert all(value.dtype == torch.float32 for value in rough.backbone.module.parameters())
    np.testing.assert_allclose(rough.encode(world.images), exact.encode(world.images), atol=0.05)
    np.testing.assert_array_equal(again.encode(world.images), exact.encode(world.images))


def test_the_faster_precision_is_remembered(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from likemind.alignment import precision

    if torch.cuda.is_available():
        pytest.skip("a GPU takes what it supports")
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path))
    taken = {False: 2.0, True: 1.0}
    monkeypatch.setattr(precision, "_seconds", lambda _, *, bfloat16: taken[bfloat16])
    assert faster_precision(world.backbone) == "bfloat16"
    monkeypatch.setattr(precision, "_seconds", lambda *_, **__: pytest.fail("measured again"))
    assert faster_precision(world.backbone) == "bfloat16"
    other = replace(world.backbone, config=world.backbone.config | {"architecture": "other"})
    monkeypatch.setattr(precision, "_seconds", lambda _, *, bfloat16: 1.0 if bfloat16 else 1.1)
    assert faster_precision(other) == "float32"  # not worth the rounding


def test_a_teacher_may_be_a_path_and_so_may_the_rest(world: World, tmp_path: Path) -> None:
    backbone = saved_backbone(tmp_path / "backbone")
    model = align(
        world.images,
        backbone,
        teacher=str(world.place / "teacher"),
        out=tmp_path / "m",
        recipe="smoke",
        changes={"steps": "1", "precision": "float32"},
        validation=str(world.data.path),
    )
    assert isinstance(model, AlignedModel)
    assert isinstance(Teacher.load(world.place / "teacher"), Teacher)
    assert not (tmp_path / "m" / "base-features").exists()


def test_what_is_judged_is_not_trained_on(world: World, tmp_path: Path) -> None:
    images = world.data.path / "images"
    with pytest.raises(LikemindError, match=r"32 of the training images \('4-0\.png', …\) are validation or held-out"):
        align(images, world.backbone, teacher=world.teacher, out=tmp_path / "m", recipe=quick(), validation=world.data)

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from evaluation.conftest import tiny_backbone
from likemind.alignment import loop
from likemind.alignment import rounds as module
from likemind.alignment.align import align
from likemind.alignment.trainer import Running
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.student.model import AlignedModel

from .conftest import quick

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

TWO = {"rounds": 2, "checkpoint_every": 1, "learning_rate": 2e-3}
WEIGHTS = ("backbone/model.safetensors", "head.safetensors", "metrics.jsonl", "round-1/metrics.jsonl")


def run(world: World, out: Path, **changes: Any) -> AlignedModel:
    return align(
        world.images, world.backbone, teacher=world.teacher, features=world.features, out=out, recipe=quick(**changes)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in WEIGHTS}


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rounds") / "m"
    run(world, out, **TWO)
    return out


def test_the_second_round_is_a_run_of_its_own_taught_by_the_first_ones_head(
    world: World, whole: Path, tmp_path: Path
) -> None:
    """By hand: a run of one round; its head on all images; a run whose teacher has these features."""
    first = run(world, tmp_path / "first", **TWO | {"rounds": 1})
    features = embed(world.images, first.backbone, out=tmp_path / "features")
    known = world.known(folder=tmp_path, seed=0)
    known.taught = world.teacher.transform(features.rows(world.images.ids))
    heads = first.encode(world.images, layer="head")
    np.testing.assert_allclose(known.taught / np.linalg.norm(known.taught, axis=1, keepdims=True), heads, atol=1e-5)
    assert np.abs(known.taught - world.known().taught).max() > 1e-3
    known.clusters = world.known().clusters
    (tmp_path / "second").mkdir()
    student, _ = module.train_rounds(known, quick(**TWO | {"rounds": 1}), 0, tmp_path / "second", Running())
    second = AlignedModel.from_pretrained(whole)
    for name, value in student.cpu().backbone.state_dict().items():
        torch.testing.assert_close(value, second.backbone.module.state_dict()[name], rtol=0, atol=0, msg=name)
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(first.backbone.module.parameters(), second.backbone.module.parameters(), strict=True)
    ]
    assert max(moved) > 1e-5


@pytest.mark.parametrize("stop", [*range(1, 7), "embedded", *range(7, 13)])
def test_stopped_anywhere_it_ends_in_the_same_bits(
    world: World, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int | str
) -> None:
    real, embedding, saved = loop.save_checkpoint, module.embed, []

    class Stop(BaseException):
        pass

    def save(*args: Any) -> None:
        real(*args)
        saved.append(1)
        if len(saved) == stop:
            raise Stop

    def embedded(*args: Any, **options: Any) -> Any:
        found = embedding(*args, **options)
        if stop == "embedded":
            raise Stop
        return found

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        patch.setattr(module, "embed", embedded)
        with pytest.raises(Stop):
            run(world, tmp_path / "m", **TWO)
    before = len(saved)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", lambda *args: saved.append(1) or real(*args))
        run(world, tmp_path / "m", **TWO)
    assert len(saved) == 12, before
    assert contents(tmp_path / "m") == contents(whole)
    assert {entry.name for entry in (tmp_path / "m" / "round-1").iterdir()} == {"metrics.jsonl"}


def test_a_teacher_of_another_backbone_has_one_round(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tiny_backbone(5)
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features}
    with caplog.at_level(logging.INFO, "likemind"):
        two = align(world.images, other, out=tmp_path / "two", recipe=quick(rounds=2), **given)
    assert "align: one round, since the teacher stands on another backbone" in caplog.text
    one = align(world.images, other, out=tmp_path / "one", recipe=quick(), **given)
    assert two.backbone.weights_hash == one.backbone.weights_hash
    assert not (tmp_path / "two" / "round-1").exists()


def test_the_paper_target_has_no_rounds(world: World, tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="--set rounds=1"):
        run(world, tmp_path / "m", rounds=2, target="paper")
    assert not (tmp_path / "m.partial").exists()


def test_a_control_has_rounds_of_its_own(world: World, tmp_path: Path) -> None:
    known = replace(world.known(control=True), folder=tmp_path)
    before = known.taught
    module.train_rounds(known, quick(**TWO), 0, tmp_path, Running())
    assert np.abs(known.taught - before).max() > 1e-5
    assert np.abs(known.taught - world.known().taught).max() > 0.1

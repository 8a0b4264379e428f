"""Every rung holds where all is well, and breaks, with its reason, for what it is there to catch."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from likemind.alignment import align as module
from likemind.alignment import ladder, trainer
from likemind.alignment.align import align
from likemind.alignment.ladder import climb
from likemind.alignment.trainer import Running
from likemind.artifacts import read_run
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.pseudolabels.label import label

from .conftest import World, made_teacher, quick

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.alignment.known import Known

PAPER = {"target": "paper", "batching": "independent", "head": "random", "temperature": 10.0, "triplets": 64}
NAMES = [
    "labels",
    "agreement of the labels with the base model",
    "256 triplets overfitted",
    "permuted labels",
    "a run of 20 steps",
]


@pytest.fixture(scope="module")
def wide(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """All 64 images of the evaluation folder, so that some can be held out, and labels of them."""
    place = tmp_path_factory.mktemp("wide")
    images = world.data.images()
    features = embed(images, world.backbone, out=place / "features")
    teacher = made_teacher(place / "teacher", features)
    for name, control in (("labels", False), ("control", True)):
        label(features, teacher, out=place / name, n=3000, clusters=4, control=control)
    return replace(world, place=place, images=images, features=features, teacher=teacher, labels=place / "labels")


def known_of(wide: World, **changes: Any) -> Known:
    return wide.known(**changes)


@pytest.mark.parametrize("changes", [{}, {"target": "paper"}, PAPER])
@pytest.mark.parametrize("control", [False, True])
def test_all_hold_where_all_is_well(
    wide: World, changes: dict[str, Any], control: bool, caplog: pytest.LogCaptureFixture
) -> None:
    triplets = wide.place / ("control" if control else "labels") if "batching" in changes else None
    if control and changes:
        changes = changes | {"target_temperature": 0.05}  # these features have small dot products
    recipe = quick(learning_rate=1e-3, head_learning_rate=1e-3, images=24, **changes)
    with caplog.at_level(logging.INFO, "likemind"):
        rungs = climb(known_of(wide, control=control, triplets=triplets), recipe, 0, Running())
    assert [rung.name for rung in rungs] == NAMES
    assert all(f"ladder {number}, " in caplog.text for number in range(1, 6))


def broken(wide: World, known: Known | None = None, **changes: Any) -> str:
    recipe = quick(learning_rate=1e-3, head_learning_rate=1e-3, images=24, **changes)
    with pytest.raises(LikemindError, match=r"rung . of the ladder, .* is broken .*; --no-ladder insists") as told:
        climb(known or known_of(wide), recipe, 0, Running())
    assert "\n" not in str(told.value)
    return str(told.value)


def test_labels_that_say_nothing(wide: World) -> None:
    assert "rung 1 of the ladder, labels, is broken" in broken(wide, sharpness=0.01)


def test_labels_that_are_tied(wide: World) -> None:
    known = known_of(wide)
    known.__dict__["taught"] = np.repeat(known.taught[:2], 32, axis=0)
    assert "rung 1" in broken(wide, known, beta=1.0)


def test_labels_of_other_images(wide: World) -> None:
    """As a wrong join leaves them."""
    known = known_of(wide)
    known.__dict__["taught"] = known.taught[np.random.default_rng(0).permutation(len(known.images))]
    assert "seem to be of other images" in broken(wide, known)


def test_labels_that_the_base_model_gives_already(wide: World) -> None:
    known = known_of(wide)
    known.__dict__["taught"] = known.base_rows - known.base_rows.mean(0)
    assert "there is nothing to learn" in broken(wide, known)


def test_a_student_that_cannot_learn(wide: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "_STEPS", (5, 5))
    monkeypatch.setattr(trainer.torch.optim.Adam, "step", lambda *_: None)
    told = broken(wide)
    assert "rung 3 of the ladder, 256 triplets overfitted, is broken" in told
    assert "after 5 steps" in told


def test_first_steps_that_lead_away(wide: World, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = quick(learning_rate=1e-3, images=24)
    world = ladder._sample(known_of(wide), recipe, np.random.default_rng(0))
    assert ladder._short(world, recipe, 0, Running()).holds
    monkeypatch.setattr(ladder, "_RATE", 0.02)
    assert not ladder._short(world, recipe.model_copy(update={"learning_rate": 0.02}), 0, Running()).holds


def test_what_is_learned_and_what_is_judged_are_apart(wide: World) -> None:
    for changes, triplets in (({}, None), (PAPER, wide.labels)):
        recipe = quick(images=24, **changes)
        known = known_of(wide, triplets=triplets)
        world = ladder._sample(known, recipe, np.random.default_rng(3))
        held = [world.whole.images.ids[position] for position in world.held.images]
        if triplets is None:
            assert not set(held) & set(world.known.images.ids)
            assert len(held) == 16
        else:
            labels, _ = world.known.labels
            rows = {tuple(row) for row in np.array(labels.items)[labels.indices].tolist()}
            judged = {tuple(row) for row in np.array(held)[world.held.triplets].tolist()}
            assert len(judged) > 200
            assert not rows & judged
        for rows, ids in (
            (world.known.base_rows, world.known.images.ids),
            (world.whole.base_rows, world.whole.images.ids),
        ):
            np.testing.assert_array_equal(rows, known.base.rows(ids))


def test_it_is_climbed_before_long_runs_alone_and_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climbed: list[int] = []
    rung = ladder.Rung("labels", "all well", True, "")
    monkeypatch.setattr(module, "climb", lambda *_: climbed.append(1) or [rung])
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features}

    def run(name: str, **changes: Any) -> Any:
        align(world.images, world.backbone, out=tmp_path / name, recipe=quick(), **given, **changes)
        return read_run(tmp_path / name)["figures"]["ladder"]

    assert run("a") == []
    assert not climbed
    assert run("b", ladder=True) == [{"name": "labels", "told": "all well", "holds": True, "mend": ""}]
    assert len(climbed) == 1
    monkeypatch.setattr(module, "LONG", 6)
    assert run("c", ladder=False) == []
    assert run("d")
    assert len(climbed) == 2


def test_a_broken_rung_leaves_nothing_and_no_ladder_insists(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def climb(*_: Any) -> None:
        raise LikemindError("rung 2 is broken")

    monkeypatch.setattr(module, "climb", climb)
    monkeypatch.setattr(module, "LONG", 6)
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features, "recipe": quick()}
    with pytest.raises(LikemindError, match="rung 2 is broken"):
        align(world.images, world.backbone, out=tmp_path / "m", **given)
    assert not (tmp_path / "m").exists()
    align(world.images, world.backbone, out=tmp_path / "m", ladder=False, **given)
    assert (tmp_path / "m" / "run.json").exists()

"""Looks at the validation objects, early stops, the best weights, trackers, and resuming all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from likemind.alignment import align as module
from likemind.alignment import loop
from likemind.alignment.align import align
from likemind.alignment.retention import Validation

from .conftest import quick

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.student.model import AlignedModel

    from .conftest import World


def run(world: World, out: Path, steps: int = 8, **changes: Any) -> AlignedModel:
    given: dict[str, Any] = {"teacher": world.teacher, "features": world.features, "validation": world.data}
    more = {key: changes.pop(key) for key in ("workers", "tracker", "images_at_once") if key in changes}
    return align(world.images, world.backbone, out=out, recipe=quick(steps=steps, **changes), **given, **more)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("target", ["mixture", "paper"])
def test_it_looks_at_the_validation_objects_meanwhile(world: World, tmp_path: Path, target: str) -> None:
    run(world, tmp_path / "a", target=target, validate_every=4, alphas=(1.0,))
    run(world, tmp_path / "b", target=target, validate_every=0, alphas=(1.0,))
    assert (tmp_path / "a/backbone/model.safetensors").read_bytes() == (
        tmp_path / "b/backbone/model.safetensors"
    ).read_bytes()
    looked = [line for line in lines(tmp_path / "a") if "validation_backbone" in line]
    assert [line["step"] for line in looked] == [3, 7]
    assert not any("validation_backbone" in line for line in lines(tmp_path / "b"))
    retention = json.loads((tmp_path / "a/retention.json").read_text())
    for layer in ("backbone", "head"):
        last = next(c["agreement"] for c in retention["candidates"] if c["shipped"] == layer and c["alpha"] == 1.0)
        assert looked[-1][f"validation_{layer}"] == pytest.approx(last)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the looks find given values, from the list that is returned, taken from its front."""
    values: list[float] = []

    def look(_self: Validation, rows: np.ndarray) -> np.ndarray:
        return np.array([values.pop(0)]) if values else real(_self, rows)

    real = Validation.agreement
    monkeypatch.setattr(Validation, "agreement", look)
    return values


def test_training_ends_early_and_takes_the_best_weights(
    world: World, tmp_path: Path, seen: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"validate_every": 2, "patience": 2, "steps": 20, "checkpoint_every": 3, "alphas": (1.0,)}
    seen += [value for value in (0.4, 0.6, 0.5, 0.6) for _ in ("backbone", "head")]
    stopped = run(world, tmp_path / "a", **plan)
    assert len(lines(tmp_path / "a")) == 8  # looks after 2, 4, 6 and 8 steps; the third and fourth are no better
    assert json.loads((tmp_path / "a/run.json").read_text())["figures"]["steps"] == 8
    assert {file.name for file in (tmp_path / "a").glob("*.safetensors")} == {"head.safetensors"}

    kept: list[dict[str, Any]] = []
    real = loop.save_checkpoint

    def save(*args: Any) -> None:
        real(*args)
        if args[0].name == loop.BEST and args[3].step == 4:
            kept.append({name: value.detach().clone() for name, value in args[1].items()})

    monkeypatch.setattr(loop, "save_checkpoint", save)
    seen += [value for value in (0.4, 0.6, 0.5, 0.6) for _ in ("backbone", "head")]
    run(world, tmp_path / "b", **plan)
    found = dict(stopped.backbone.module.named_parameters())
    for name, value in kept[0].items():
        assert np.array_equal(found[name.removeprefix("backbone.")].detach().numpy(), value.numpy()), name


class Stop(BaseException):
    """What a power cut is to Python."""


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_resumed_it_stops_early_all_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Killed after any checkpoint, the last or the best, and continued with another number of threads."""
    plan = {"validate_every": 1, "patience": 2, "steps": 12, "checkpoint_every": 2, "learning_rate": 2e-3, "pull": 5.0}
    plan |= {"beta": 0.6, "row_weight": 0.3}  # with these the best look comes neither at once nor at the end
    run(world, tmp_path / "whole", **plan, workers=1)
    assert 2 < len(lines(tmp_path / "whole")) < 12
    real, calls = loop.save_checkpoint, []

    def save(*args: Any) -> None:
        real(*args)
        calls.append(args[0].name)
        if len(calls) == stop:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        with pytest.raises(Stop):
            run(world, tmp_path / "m", **plan, workers=1)
    run(world, tmp_path / "m", **plan, workers=3)
    for name in ("backbone/model.safetensors", "metrics.jsonl", "retention.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_tracker_of_accelerates_is_told_everything(world: World, tmp_path: Path) -> None:
    from accelerate.tracking import GeneralTracker

    class Tracker(GeneralTracker):  # type: ignore[misc]
        name, requires_logging_directory = "own", False

        def __init__(self) -> None:
            super().__init__()
            self.told: list[tuple[int, dict[str, float]]] = []
            self.config: dict[str, Any] = {}
            self.finished = False

        @property
        def tracker(self) -> Any:
            return self

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.config = values

        def log(self, values: dict[str, float], step: int, **_: Any) -> None:
            self.told.append((step, values))

        def finish(self) -> None:
            self.finished = True

    tracker = Tracker()
    run(world, tmp_path / "m", tracker=tracker)
    assert tracker.finished
    assert tracker.config["target"] == "mixture"
    assert tracker.told == [(line.pop("step"), line) for line in lines(tmp_path / "m")]
    assert module.read_run(tmp_path / "m")["figures"]["steps"] == 8

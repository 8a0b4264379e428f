"""Two processes, for real, over gloo: they learn what one learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file

from evaluation.conftest import saved_backbone
from likemind.student.model import AlignedModel

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

DRIVER = textwrap.dedent("""
    import json, os, sys
    import torch
    torch.set_num_threads(1)
    from likemind.alignment import align as module, loop
    from likemind.alignment.recipe import resolve_recipe
    from likemind.errors import LikemindError
    from likemind.images.collection import open_images
    data, backbone, teacher, features, out, asked = sys.argv[1:7]
    asked = json.loads(asked)
    stop = asked.pop("stop", None)
    real = loop.save_checkpoint
    def save(*args):
        real(*args)
        if args[3].step == stop:
            os._exit(9)
    loop.save_checkpoint = save
    if asked.pop("double", False):
        from likemind.alignment.trainee import Student
        start = Student.start
        def double(*args):
            student = start(*args).double()
            student.start_weights = {name: value.double() for name, value in student.start_weights.items()}
            student.backbone.register_forward_pre_hook(lambda _, pixels: (pixels[0].double(),))
            return student
        Student.start = double
    tell = lambda what: os.write(1, f"told {what}\\n".encode())  # at once: two processes write to one pipe
    images = open_images(data + "/images").select([f"{c}-{k}.png" for c in range(4) for k in range(8)])
    recipe = resolve_recipe("smoke", {"precision": "float32", "images": 13, **asked.pop("recipe", {})})
    if "validation" in asked:
        asked["validation"] = data
    try:
        model = module.align(images, backbone, teacher=teacher, features=features, out=out, recipe=recipe, **asked)
        tell(model.key)
    except LikemindError as error:
        tell(error)
        sys.exit(2)
""")


def launch(world: World, place: Path, out: str, processes: int, **asked: object) -> tuple[int, list[str]]:
    """Run ``align`` under torchrun, or plainly; return the exit code and what each process told."""
    paths = [world.data.path, place / "backbone", world.place / "teacher", world.features.path, place / out]
    (place / "driver.py").write_text(DRIVER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *torchrun, str(place / "driver.py"), *map(str, paths), json.dumps(asked)]
    env = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300, cwd=place)
    told = [line.removeprefix("told ") for line in done.stdout.splitlines() if line.startswith("told ")]
    return done.returncode, told or [done.stderr]


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("processes")
    saved_backbone(place / "backbone")
    return place


def apart(a: Path, b: Path) -> float:
    """Largest difference of a weight, in units of the largest weight of its kind."""
    worst = 0.0
    for file in ("backbone/model.safetensors", "head.safetensors"):
        ours, theirs = load_file(a / file), load_file(b / file)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if value.is_floating_point():
                scale = max(1.0, float(value.abs().max()))
                worst = max(worst, float((value - theirs[name]).abs().max()) / scale)
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("target", ["mixture", "paper", "rounds"])
def test_two_processes_learn_what_one_does(world: World, place: Path, target: str) -> None:
    """13 images do not divide by two. Adam makes of rounding a step where a gradient is next to nothing: so in float64.

    The mixture has no such weights, and is the same in float32.
    """
    paper = {"target": "paper", "head": "random", "temperature": 5.0, "batching": "independent", "triplets": 21}
    given: dict[str, dict[str, object]] = {
        "mixture": {},
        "paper": {"recipe": paper, "double": True},
        "rounds": {"recipe": {"rounds": 2}},
    }
    code, told = launch(world, place, f"{target}-one", 1, **given[target])
    assert code == 0, told
    code, told = launch(world, place, f"{target}-two", 2, **given[target])
    assert code == 0, told
    assert len(set(told)) == 1  # both return the model
    assert apart(place / f"{target}-one", place / f"{target}-two") < (1e-9 if target == "paper" else 1e-6)
    lines = [(place / f"{target}-{k}" / "metrics.jsonl").read_text().splitlines() for k in ("one", "two")]
    for one, two in zip(*(list(map(json.loads, part)) for part in lines), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_what_two_processes_began_one_ends(world: World, place: Path) -> None:
    code, _ = launch(world, place, "begun", 2, stop=4)
    assert code != 0
    assert (place / "begun.partial" / "checkpoint.safetensors").exists()
    assert launch(world, place, "begun", 1)[0] == 0
    assert launch(world, place, "whole", 1)[0] == 0
    assert apart(place / "begun", place / "whole") < 1e-6
    code, told = launch(world, place, "begun", 2)
    assert (code, set(told)) == (0, {AlignedModel.from_pretrained(place / "begun").key})  # nothing to do


@pytest.mark.slow
def test_a_mistake_ends_both(world: World, place: Path) -> None:
    code, told = launch(world, place, "mistaken", 2, recipe={"tuning": "head"})
    assert code != 0
    assert all("has no head that learns" in line for line in told)
    assert not (place / "mistaken.partial").exists()

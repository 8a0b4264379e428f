"""A step: the same whatever the number of images at once and of threads; and what is said when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from likemind.alignment.trainee import Student
from likemind.alignment.trainer import Running, Trainer, batches_ahead
from likemind.errors import LikemindError

from .conftest import quick

if TYPE_CHECKING:
    from likemind.alignment.batches import Batch

    from .conftest import World

PAPER = {"target": "paper", "head": "random", "temperature": 5.0, "batching": "independent", "triplets": 7}


def trainer_of(world: World, running: Running | None = None, **changes: Any) -> Trainer:
    known, recipe = world.known(), quick(images=13, **changes)
    return Trainer(Student.start(world.backbone, known, recipe, 0), known, recipe, running or Running())


def read(trainer: Trainer, batch: Batch) -> torch.Tensor:
    ((_, _, pixels),) = batches_ahead(trainer.known, [(0, batch)], trainer)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("changes", [{}, PAPER])
@pytest.mark.parametrize("at_once", [1, 4, 12, 100])
def test_images_at_once_do_not_change_the_gradient(world: World, at_once: int, changes: dict[str, Any]) -> None:
    """In float64: the loss is one sum over all triplets of the batch, not a mean of the pieces' means."""
    gradients = []
    for running in (Running(), Running(images_at_once=at_once)):
        trainer = trainer_of(world, running, **changes)
        trainer.student.double()
        batch = trainer.known.batch(trainer.recipe, 0, 3)
        trainer._forward = lambda pixels, network=trainer.network: network(pixels.double())  # type: ignore[method-assign]
        parts = trainer.gradients(batch, read(trainer, batch), what="")
        gradients.append({name: value.grad for name, value in trainer.student.learning.items()} | parts)
    whole, pieces = gradients
    assert whole.keys() == pieces.keys()
    for name, value in whole.items():
        assert value is not None
        torch.testing.assert_close(pieces[name], value, rtol=1e-9, atol=1e-12, msg=name)
    assert any(float(value.abs().max()) > 1e-6 for name, value in whole.items() if name.startswith("backbone."))


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_pixels_are_the_same_with_any_number_of_threads(world: World, workers: int) -> None:
    trainer = trainer_of(world, Running(workers=workers))
    batches = [(step, trainer.known.batch(trainer.recipe, 0, step)) for step in (4, 5, 9)]
    found = list(batches_ahead(trainer.known, batches, trainer))
    assert [step for step, _, _ in found] == [4, 5, 9]
    for (_, batch), (_, same, pixels) in zip(batches, found, strict=True):
        assert same is batch
        assert pixels is not None
        wanted = [world.backbone.preprocessing(world.images.read(int(k))) for k in batch.images]
        assert torch.equal(pixels, torch.stack(wanted))


def test_an_unreadable_image_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(world)

    def read_one(position: int) -> Any:
        raise LikemindError(f"image {position} is broken")

    monkeypatch.setattr(trainer.known.images, "read", read_one)
    with pytest.raises(LikemindError, match="is broken"):
        read(trainer, trainer.known.batch(trainer.recipe, 0, 0))


def test_an_image_with_no_finite_output_is_named(world: World) -> None:
    trainer = trainer_of(world)
    batch = trainer.known.batch(trainer.recipe, 0, 0)
    pixels = read(trainer, batch).clone()
    pixels[2] = torch.nan
    name = world.images.ids[batch.images[2]]
    with pytest.raises(LikemindError, match=rf"not finite at step 7; the network's output is not finite for '{name}':"):
        trainer.gradients(batch, pixels, what="at step 7")


@pytest.mark.parametrize("at_once", [None, 5])
@pytest.mark.parametrize("kind", ["device", "allocator"])
def test_out_of_memory_says_what_to_try(world: World, at_once: int | None, kind: str) -> None:
    trainer = trainer_of(world, Running(images_at_once=at_once))
    batch = trainer.known.batch(trainer.recipe, 0, 0)
    pixels = read(trainer, batch)

    def too_much(*_: Any) -> None:
        if kind == "allocator":
            torch.empty(1 << 60)  # PyTorch's own words
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer.student.backbone.register_forward_pre_hook(too_much)
    count = at_once or len(batch.images)
    words = (
        rf"memory ran out with {count} images at once \(.*\): try --images-at-once {count // 2}, which learns the same"
    )
    with pytest.raises(LikemindError, match=words) as told:
        trainer.gradients(batch, pixels, what="")
    assert "\n" not in str(told.value)


def test_other_errors_of_the_network_are_not_about_memory(world: World) -> None:
    trainer = trainer_of(world)
    batch = trainer.known.batch(trainer.recipe, 0, 0)
    with pytest.raises(RuntimeError, match="expected input"):
        trainer.gradients(batch, torch.zeros(len(batch.images), 4, 32, 32), what="")


def test_what_the_output_does_not_need_is_frozen(world: World) -> None:
    known, recipe = world.known(), quick()
    student = Student.start(world.backbone, known, recipe, 0)
    spare = torch.nn.Linear(3, 3)
    student.backbone.spare = spare
    student.start_weights |= {f"backbone.spare.{name}": value.detach() for name, value in spare.named_parameters()}
    before = set(student.learning)
    Trainer(student, known, recipe, Running())
    assert before - set(student.learning) == {"backbone.spare.weight", "backbone.spare.bias"}
    assert set(student.start_weights) == set(student.learning)


def test_compiled_it_learns_the_same(world: World) -> None:
    plain, compiled = trainer_of(world), trainer_of(world)
    compiled.network.compile(backend="aot_eager")  # what --compile does, without waiting for a C++ compiler
    assert np.isclose(*(losses(one)[-1] for one in (plain, compiled)), rtol=1e-4)
    model = compiled.student.at(1.0)
    assert set(model.backbone.module.state_dict()) == set(world.backbone.module.state_dict())


def losses(trainer: Trainer) -> list[float]:
    batches = [(step, trainer.known.batch(trainer.recipe, 0, step)) for step in range(3)]
    return [
        trainer.step(batch, pixels, 0.5, what="")["loss"]
        for _, batch, pixels in batches_ahead(trainer.known, batches, trainer)
    ]

"""The ``paper`` recipe against what AligNet's released configuration computes, in its own libraries.

``optax_chain.json`` was made by optax 0.2.8 in float64: ``scale_by_adam``, then kauldron's ``decay_to_init`` (adds
1.0 · (θ − θ₀)), then ``scale_by_learning_rate`` of ``warmup_cosine_decay_schedule``, on a quadratic; and the spread of
JAX's ``lecun_normal``, which Flax's Dense starts from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from likemind.alignment.recipe import RECIPES, Recipe, rate
from likemind.alignment.trainee import HEAD_WIDTH, Student, _random_head
from likemind.alignment.trainer import Running, Trainer

from .conftest import quick

if TYPE_CHECKING:
    from .conftest import World


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "optax_chain.json").read_text())
    return found


def test_the_trainer_walks_the_published_trajectory(
    world: World, published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    A, c, start = (torch.tensor(published[name], dtype=torch.float64) for name in ("A", "c", "start"))
    steps, peak = published["steps"], published["peak"]
    recipe = quick(
        tuning="head",
        target="paper",
        head="random",
        steps=steps,
        head_learning_rate=peak,
        pull=1.0,
        warmup=published["warmup_steps"] / steps,
        from_zero=True,
    )
    known = world.known()
    student = Student.start(world.backbone, known, recipe, 0).double()
    assert student.head is not None
    place = student.head.bias
    with torch.no_grad():
        place[: len(start)] = start
    student.start_weights = {name: value.detach().clone() for name, value in student.learning.items()}
    trainer = Trainer(student, known, recipe, Running())

    def gradients(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        place.grad = torch.zeros_like(place)
        place.grad[: len(start)] = A @ place.detach()[: len(start)] + c
        return {}

    monkeypatch.setattr(trainer, "gradients", gradients)
    batch = known.batch(recipe, 0, 0)
    for step, wanted in enumerate(published["trajectory"]):
        assert rate(step, recipe) * peak == pytest.approx(published["rates"][step], abs=1e-8)  # optax's are float32
        trainer.step(batch, None, rate(step, recipe), what="")
        np.testing.assert_allclose(place.detach()[: len(start)].numpy(), wanted, rtol=1e-6, atol=1e-7)
    assert np.abs(np.array(wanted) - published["start"]).max() > 0.1


def test_a_random_head_is_spread_like_flaxs(published: dict[str, Any]) -> None:
    head, flax = _random_head(768, 0), published["lecun_normal_768"]
    assert head.weight.shape == (HEAD_WIDTH, 768)
    assert head.weight.std().item() == pytest.approx(flax["std"], rel=0.005)
    assert head.weight.abs().max().item() == pytest.approx(flax["max"], rel=0.001)
    assert torch.nn.Linear(768, 1024).weight.std().item() == pytest.approx(flax["std"] / 3**0.5, rel=0.02)


def test_the_recipe_is_the_released_file() -> None:
    paper = RECIPES["paper"]
    assert (paper.objective, paper.similarity) == ("jensen_shannon", "dot")
    assert (paper.temperature, paper.target_temperature) == (100.0, 1.0)
    assert (paper.batching, paper.triplets, paper.steps, paper.validate_every) == ("independent", 512, 100_000, 5000)
    assert (paper.pull, paper.tuning, paper.head) == (1.0, "full", "random")
    assert rate(0, paper) == 0.0
    assert rate(5000, paper) == 1.0
    assert [rate(step, paper) for step in (2500, 52_500)] == pytest.approx([0.5, 0.5])
    assert rate(99_999, paper) < 1e-8
    assert rate(0, Recipe()) > 0

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.alignment.recipe import RECIPES, Recipe, rate, resolve_recipe
from likemind.errors import LikemindError


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("huge", {}, "no recipe 'huge': choose one of smoke, small, paper"),
        ("small", {"step": 3}, r"recipe field 'step': extra inputs are not permitted \(fields: target, objective"),
        ("small", {"beta": 1.5}, "recipe field 'beta': input should be less than or equal to 1"),
        ("small", {"beta": -0.1}, "recipe field 'beta'"),
        ("small", {"sharpness": 0}, "recipe field 'sharpness'"),
        ("small", {"steps": 0}, "recipe field 'steps'"),
        ("small", {"steps": "many"}, "recipe field 'steps'"),
        ("small", {"images": 2}, "recipe field 'images'"),
        ("small", {"clusters": 1}, "recipe field 'clusters'"),
        ("small", {"warmup": 1.0}, "recipe field 'warmup'"),
        ("small", {"pull": -1}, "recipe field 'pull'"),
        ("small", {"learning_rate": 0}, "recipe field 'learning_rate'"),
        ("small", {"target": "best"}, "recipe field 'target'"),
        ("small", {"precision": "float8"}, "recipe field 'precision'"),
        ("small", {"alphas": ()}, "recipe field 'alphas'"),
        ("small", {"alphas": (1.0, 1.5)}, "recipe field 'alphas.1'"),
        ("small", {"betas": (0.0,)}, "recipe field 'betas.0'"),
        ("small", {"max_loss": -0.5}, "recipe field 'max_loss'"),
    ],
)
def test_what_is_wrong_is_named(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LikemindError, match=words) as told:
        resolve_recipe(name, changes)
    assert "\n" not in str(told.value)


def test_changes_and_names() -> None:
    assert set(RECIPES) == {"smoke", "small", "paper"}
    assert resolve_recipe("small") == Recipe()
    changed = resolve_recipe(
        "small", {"steps": "12", "target": "paper", "alphas": [1, 0.5]}
    )  # as a command line says it
    assert (changed.steps, changed.target, changed.alphas) == (12, "paper", (1.0, 0.5))
    assert resolve_recipe(changed, {"beta": 0.1}).steps == 12
    assert resolve_recipe(changed) == changed


def test_paper_is_the_released_configuration() -> None:
    paper = RECIPES["paper"]
    assert (paper.temperature, paper.steps, paper.triplets, paper.pull) == (100.0, 100_000, 512, 1.0)
    assert paper.learning_rate == paper.head_learning_rate == 3e-5
    assert paper.warmup * paper.steps == 5000
    assert (paper.target, paper.batching, paper.head) == ("paper", "independent", "random")


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_the_rate_rises_and_falls(steps: int, warmup: float) -> None:
    recipe = Recipe(steps=steps, warmup=warmup)
    rates = [rate(step, recipe) for step in range(steps)]
    assert all(0 < value <= 1 for value in rates)
    rise = warmup * steps
    up = [value for step, value in enumerate(rates) if step < rise]
    down = [value for step, value in enumerate(rates) if step >= rise]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    for step, value in enumerate(rates):
        cosine = (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2
        assert value == pytest.approx((step + 1) / (rise + 1) if step < rise else cosine)


def test_the_peak_is_reached_and_the_end_is_near_zero() -> None:
    recipe = Recipe(steps=1000, warmup=0.1)
    assert rate(100, recipe) == 1.0
    assert rate(0, recipe) < 0.01
    assert rate(999, recipe) < 1e-4
    assert sum(rate(step, recipe) for step in range(1000)) == pytest.approx(500, rel=0.01)

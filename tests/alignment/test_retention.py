from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from likemind.alignment.retention import Candidate, Validation, choose_shipped, measure
from likemind.alignment.trainee import Student
from likemind.episodes import draw_episodes
from likemind.evaluation.fewshot import fewshot
from likemind.student.model import mix

from .conftest import quick
from .test_trainee import moved

if TYPE_CHECKING:
    from likemind.student.model import AlignedModel

    from .conftest import World

NOISE = np.random.default_rng(0).normal(size=400) * 0.05


def candidate(shipped: Any, agreement: float, few: float, alpha: float = 1.0, noise: np.ndarray = NOISE) -> Candidate:
    return Candidate(shipped, alpha, {"backbone": 0.0, "head": 1.0, "mix": 0.5}[shipped], agreement + noise, few)


BASE = candidate("backbone", 0.40, 0.60, 0.0)


@pytest.mark.parametrize(
    ("candidates", "max_loss", "wanted"),
    [
        # the most aligned of those that keep few-shot accuracy
        ([("backbone", 0.45, 0.60), ("head", 0.55, 0.60), ("mix", 0.50, 0.60)], 0.5, 1),
        # not one that loses more than half a point
        ([("backbone", 0.45, 0.60), ("head", 0.55, 0.594), ("mix", 0.50, 0.596)], 0.5, 2),
        # unless that much is allowed
        ([("backbone", 0.45, 0.60), ("head", 0.55, 0.594), ("mix", 0.50, 0.596)], 1.0, 1),
        # where none keeps enough, the one that keeps most
        ([("backbone", 0.45, 0.40), ("head", 0.55, 0.30), ("mix", 0.50, 0.39)], 0.5, 0),
        # equally aligned: the plainest
        ([("mix", 0.50, 0.60), ("head", 0.50, 0.60), ("backbone", 0.50, 0.60)], 0.5, 2),
        ([("mix", 0.50, 0.60), ("head", 0.50, 0.60)], 0.5, 1),
    ],
)
def test_the_rule(candidates: list[tuple[str, float, float]], max_loss: float, wanted: int) -> None:
    made = [candidate(kind, agreement, few) for kind, agreement, few in candidates]
    assert choose_shipped(BASE, made, max_loss) is made[wanted]


def test_what_noise_cannot_tell_apart_is_as_good() -> None:
    other = np.random.default_rng(1).normal(size=400) * 0.05
    error = np.std(other - NOISE) / np.sqrt(400)
    mixed = candidate("mix", 0.50, 0.60)
    within = candidate("backbone", 0.50 - 1.0 * error, 0.60, noise=other - other.mean() + NOISE.mean())
    beyond = candidate("backbone", 0.50 - 3.0 * error, 0.60, noise=other - other.mean() + NOISE.mean())
    assert choose_shipped(BASE, [mixed, within], 0.5) is within
    assert choose_shipped(BASE, [mixed, beyond], 0.5) is mixed


def test_of_equals_the_one_nearest_to_the_trained_weights() -> None:
    half, whole = candidate("backbone", 0.5, 0.6, alpha=0.5), candidate("backbone", 0.5, 0.6, alpha=1.0)
    assert choose_shipped(BASE, [half, whole], 0.5) is whole


def test_where_few_shot_is_unknown_only_backbones_are_shipped() -> None:
    nan = float("nan")
    base = candidate("backbone", 0.4, nan)
    made = [candidate("head", 0.9, nan), candidate("backbone", 0.3, nan), candidate("backbone", 0.5, nan, alpha=0.5)]
    assert choose_shipped(base, made, 0.5) is made[2]


def test_what_is_measured_is_what_can_be_shipped(world: World) -> None:
    known, recipe = world.known(), quick(alphas=(1.0, 0.5), betas=(0.25, 0.75))
    student = moved(Student.start(world.backbone, known, recipe, 0), size=0.3)
    validation = Validation(world.data, 0, world.backbone)
    base, found = measure(student.at, recipe, validation)
    assert (base.shipped, base.alpha, base.beta) == ("backbone", 0.0, 0.0)
    shapes = [(c.shipped, c.alpha, c.beta) for c in found]
    one = [("backbone", 0.0), ("mix", 0.25), ("mix", 0.75), ("head", 1.0)]
    assert shapes == [(kind, alpha, beta) for alpha in (1.0, 0.5) for kind, beta in one]

    items = [item for item in world.data.items if item.split == "validation"]
    images = world.data.images().select([item.id for item in items])
    tasks = [draw_episodes([item.category for item in items], k, 0, episodes=60) for k in (1, 5)]
    triplets, people, _ = world.data.judgements("validation").targets()
    names = world.data.judgements("validation").items
    place = {item.id: k for k, item in enumerate(items)}
    rows_of = np.array([[place[names[k]] for k in row] for row in triplets])

    def check(model: AlignedModel, layer: str, beta: float, told: Candidate) -> None:
        parts = [model.encode(images, layer=name) for name in ("backbone", "head")]
        rows = mix(parts[0], parts[1], beta) if layer == "mix" else parts[("backbone", "head").index(layer)]
        s = np.stack([(rows[rows_of[:, a]] * rows[rows_of[:, b]]).sum(1) for a, b in ((0, 1), (0, 2), (1, 2))], axis=1)
        wanted = people[np.arange(len(s)), s.argmax(1)].mean()
        assert told.agreement == pytest.approx(wanted, abs=1e-9)
        one, five = (fewshot(rows, shots, 0).value for shots in tasks)
        assert told.fewshot == pytest.approx((one + five) / 2, abs=1e-6)

    check(student.at(0.0), "backbone", 0.0, base)
    for told in found:
        check(student.at(told.alpha), told.shipped, told.beta, told)
    assert len({round(c.agreement, 6) for c in found}) > 2


def test_without_a_head_there_are_backbones_only(world: World) -> None:
    known = world.known()
    student = Student.start(world.backbone, known, quick(), 0)
    student.head = None
    _, found = measure(student.at, quick(alphas=(1.0, 0.5)), Validation(world.data, 0, world.backbone))
    assert [(c.shipped, c.alpha) for c in found] == [("backbone", 1.0), ("backbone", 0.5)]

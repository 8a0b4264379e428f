"""The ladder: five quick tests before a long run, each of which a wrong file, join or gradient would break.

    1. Labels: they are sure of something, and seldom tied.
    2. The base model: it agrees with the labels more than chance, and does not say all of it already.
    3. Overfitting: 256 triplets over a few images are learned, above 95 %.
    4. Permuted labels: what is learned from them is worth nothing on other images.
    5. A hundredth of the run: on images it has not seen, it is nearer to the labels than the base.

Cost: the first two forward no image. The third takes at most a twentieth of the run's images (and 60 to 500 steps of 24
images; of labels from a file, of up to 768). The other two take two hundredths of it (8 to 200 steps each), and four
times 128 images forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.alignment.batches import Batch, any_three, packed_batch
from likemind.alignment.trainee import Student, choices
from likemind.alignment.trainer import Running, Trainer, batches_ahead
from likemind.choice import choose, entropy, log_probabilities, pair_similarities
from likemind.errors import LikemindError
from likemind.progress import log
from likemind.student.losses import choice_loss
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe

LONG = 300
"""Steps from which a run is long enough for the ladder."""

_TRIPLETS, _FEW, _HELD = 256, 24, 128
_STEPS, _SHORT = (60, 500), (8, 200)


@dataclass(frozen=True)
class Rung:
    """One test.

    Attributes:
        name: What is tested.
        told: What was found.
        holds: Whether the rung holds.
        mend: What to look at where it does not.
    """

    name: str
    told: str
    holds: bool
    mend: str


def climb(known: Known, recipe: Recipe, seed: int, running: Running) -> list[Rung]:
    """Climb the ladder, telling of each rung.

    Args:
        known: The images, and what is known of them.
        recipe: Of the run that is guarded.
        seed: Of the samples.
        running: How it is carried out.

    Returns:
        The rungs, all of which hold.

    Raises:
        LikemindError: A rung is broken; it says which and why.
    """
    climbed = []
    for number, rung in enumerate(_rungs(known, recipe, seed, running), start=1):
        log.info("ladder %d, %s: %s: %s", number, rung.name, rung.told, "holds" if rung.holds else "broken")
        if not rung.holds:
            raise LikemindError(
                f"rung {number} of the ladder, {rung.name}, is broken ({rung.told}): {rung.mend}; --no-ladder insists"
            )
        climbed.append(rung)
    return climbed


def _rungs(known: Known, recipe: Recipe, seed: int, running: Running) -> Iterator[Rung]:
    rng = np.random.default_rng([seed, 17])
    human = recipe.model_copy(update={"beta": 1.0, "row_weight": 0.0})
    world = _sample(known, recipe, rng)
    yield _labels(world, recipe)
    yield _base(world, human)
    if len(world.known.images) < 2 * _FEW or len(world.held.triplets) < _HELD:
        log.info("ladder: %d images are too few to try out training", len(world.known.images))
        return
    yield _overfit(world, human, seed, running)
    yield _permuted(world, human, seed, running, rng)
    yield _short(world, recipe, seed, running)


@dataclass(frozen=True, eq=False)
class _World:
    """A sample of the images, small enough to be permuted.

    Attributes:
        known: What a short run may learn from.
        held: Other images, with triplets.
        whole: The sample with both.
    """

    known: Known
    held: Batch
    whole: Known


def _sample(known: Known, recipe: Recipe, rng: np.random.Generator) -> _World:
    steps = _short_steps(recipe)
    if known.from_file(recipe):
        return _sample_of_labels(known, steps * recipe.triplets, rng)
    count = len(known.images)
    held = min(_HELD, count // 4)
    most = min(count, held + max(1000, steps * recipe.images))
    clusters = rng.permutation(int(known.clusters.max()) + 1)[known.clusters]
    whole = _part(
        known, np.sort(np.argsort(clusters, kind="stable")[:most])
    )  # whole clusters, so that they have images
    apart = np.sort(rng.permutation(most)[:held])
    triplets = any_three(rng, held, 16 * held) if held > 2 else np.empty((0, 3), dtype=np.int64)
    return _World(_part(whole, np.setdiff1d(np.arange(most), apart)), Batch(apart, triplets), whole)


def _sample_of_labels(known: Known, count: int, rng: np.random.Generator) -> _World:
    labels, positions = known.labels
    assert labels.similarities is not None
    rows = rng.permutation(len(labels))[: count + 8 * _HELD]
    images, flat = np.unique(positions[rows], return_inverse=True)
    places = flat.reshape(-1, 3)
    whole = _part(known, images)
    cut = min(8 * _HELD, len(rows) // 4)
    seen, inside = np.unique(places[:cut], return_inverse=True)
    held = Batch(seen, inside.reshape(-1, 3), labels.similarities[rows[:cut]])
    rest = Triplets(whole.images.ids, places[cut:], similarities=labels.similarities[rows[cut:]], source="pseudo")
    learned = _part(whole, np.arange(len(images)))
    learned.__dict__["labels"] = (rest, places[cut:])
    return _World(learned, held, whole)


def _part(known: Known, positions: np.ndarray) -> Known:
    """Return what is known of some of the images."""
    part = replace(known, images=known.images.select([known.images.ids[position] for position in positions]))
    part.__dict__["base_rows"] = known.base_rows[positions]
    if known.teacher is not None:
        part.__dict__["taught"] = known.taught[positions]
        part.__dict__["clusters"] = known.clusters[positions]
    return part


def _labels(world: _World, recipe: Recipe) -> Rung:
    target, _ = choices(_at_start(world, recipe), _pooled(world), world.held, world.whole, recipe)
    share = float(entropy(log_probabilities(target, recipe.target_temperature)).mean()) / math.log(3)
    ties = float((choose(target) < 0).float().mean())
    return Rung(
        "labels",
        f"mean entropy {share:.1%} of guessing, {ties:.1%} ties",
        share < 0.98 and ties < 0.1,
        "the labels say almost nothing; look at the teacher's scale (--set target_temperature, sharpness)",
    )


def _base(world: _World, human: Recipe) -> Rung:
    student = _at_start(world, human)
    target, _ = choices(student, _pooled(world), world.held, world.whole, human)
    rows = torch.nn.functional.normalize(_pooled(world) - student.centre)
    found = float(
        (choose(pair_similarities(rows, torch.from_numpy(world.held.triplets))) == target.argmax(1)).float().mean()
    )
    enough = 1 / 3 + 3 * math.sqrt(2 / 9 / len(target))
    nothing = found > 0.999 and not world.whole.control
    return Rung(
        "agreement of the labels with the base model",
        f"{found:.1%}, chance 33.3 %",
        enough < found and not nothing,
        "the base model says all of it already, there is nothing to learn"
        if nothing
        else "the labels seem to be of other images, or the base model has not been trained",
    )


def _overfit(world: _World, human: Recipe, seed: int, running: Running) -> Rung:
    changes = {"objective": "hard", "pull": 0.0, "triplets": _TRIPLETS, "images": _FEW, "clusters": 4}
    plan = human.model_copy(update=changes)
    whole = human.steps * (3 * human.triplets if human.batching == "independent" else human.images)
    if world.known.from_file(human):
        batch = world.known.batch(plan, seed, 0)
    else:
        plan = plan.model_copy(update={"batching": "packed"})
        batch = packed_batch(world.known.clusters, plan, seed, 0)
    most = int(np.clip(whole // 20 // len(batch.images), *_STEPS))
    trainer = Trainer(_at_start(world, plan, seed), world.known, plan, running)
    ((_, _, pixels),) = batches_ahead(world.known, [(0, batch)], trainer)
    accuracy, step = 0.0, 0
    while accuracy <= 0.95 and step <= most:  # the rate grows tenfold meanwhile
        accuracy = trainer.step(batch, pixels, 10 ** (step / most), what="on the ladder")["accuracy"]
        step += 1
    return Rung(
        f"{len(batch.triplets)} triplets overfitted",
        f"{accuracy:.1%} after {step - 1} steps, wanted above 95 %",
        accuracy > 0.95,
        "the student cannot learn what it is shown; look at what learns (--set tuning), the rates and the labels",
    )


def _permuted(world: _World, human: Recipe, seed: int, running: Running, rng: np.random.Generator) -> Rung:
    """Teach what the teacher says of *other* images; or, of labels from a file, other answers."""
    if world.known.from_file(human):
        labels, positions = world.known.labels
        assert labels.similarities is not None
        assert world.held.similarities is not None
        known, whole = replace(world.known), world.whole
        known.__dict__ |= world.known.__dict__
        mixed = Triplets(
            labels.items, labels.indices, similarities=_shuffled(labels.similarities, rng), source="pseudo"
        )
        known.__dict__["labels"] = (mixed, positions)
        held = Batch(world.held.images, world.held.triplets, _shuffled(world.held.similarities, rng))
    else:
        known, whole = _mixed_up(world.known, rng), _mixed_up(world.whole, rng)
        held = world.held
    trainer = _run(known, human, seed, running)
    found = _judge(trainer, held, whole, human)[1]
    most = 1 / 3 + 0.05 + 0.5 / math.sqrt(len(held.images))
    return Rung(
        "permuted labels",
        f"{found:.1%} on other images, chance 33.3 %",
        found < most,
        "something other than the labels is learned; look for images that are there twice, or a constant answer",
    )


def _short(world: _World, recipe: Recipe, seed: int, running: Running) -> Rung:
    before = _judge(
        Trainer(_at_start(world, recipe, seed), world.known, recipe, running), world.held, world.whole, recipe
    )
    trainer = _run(world.known, recipe, seed, running)
    after = _judge(trainer, world.held, world.whole, recipe)
    return Rung(
        f"a run of {_short_steps(recipe)} steps",
        f"on other images loss {before[0]:.4f} → {after[0]:.4f}, agreement {before[1]:.1%} → {after[1]:.1%}",
        after[0] < before[0],
        "the first steps lead away from the labels; lower --set learning_rate, or look at the labels",
    )


def _short_steps(recipe: Recipe) -> int:
    return int(np.clip(recipe.steps // 100, *_SHORT))


def _run(known: Known, recipe: Recipe, seed: int, running: Running) -> Trainer:
    """Train for a hundredth of the run's steps; the rate rises over the first half."""
    steps = _short_steps(recipe)
    trainer = Trainer(Student.start(known.backbone, known, recipe, seed), known, recipe, running)
    batches = ((step, known.batch(recipe, seed, step)) for step in range(steps))
    for step, batch, pixels in batches_ahead(known, batches, trainer):
        trainer.step(batch, pixels, min(1.0, 2 * (step + 1) / steps), what="on the ladder")
    return trainer


@torch.no_grad()
def _judge(trainer: Trainer, held: Batch, whole: Known, recipe: Recipe) -> tuple[float, float]:
    """Return the loss on held-out images, and the share of triplets where the labels' choice is made."""
    ((_, _, pixels),) = batches_ahead(whole, [(0, held)], trainer)
    pooled = torch.from_numpy(whole.base_rows[held.images]) if pixels is None else trainer.outputs(pixels).cpu()
    student = trainer.student.cpu()
    target, similarity = choices(student, pooled, held, whole, recipe)
    loss = choice_loss(
        target,
        similarity,
        objective=recipe.objective,
        target_temperature=recipe.target_temperature,
        temperature=recipe.temperature,
    )
    return float(loss), float((choose(similarity) == target.argmax(1)).float().mean())


def _at_start(world: _World, recipe: Recipe, seed: int = 0) -> Student:
    return Student.start(world.whole.backbone, world.whole, recipe, seed)


def _pooled(world: _World) -> torch.Tensor:
    return torch.from_numpy(world.whole.base_rows[world.held.images])


def _mixed_up(known: Known, rng: np.random.Generator) -> Known:
    other = replace(known)
    other.__dict__ |= known.__dict__ | {"taught": known.taught[rng.permutation(len(known.images))]}
    return other


def _shuffled(similarities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permuted(similarities, axis=1)

"""The ladder: five quick tests before a long run, each of which a wrong file, join or gradient would break.

    1. Labels: they are sure of something, and seldom tied.
    2. The base model: it agrees with the labels more than chance, and does not say all of it already.
    3. Overfitting: 256 triplets over a few images are learned, above 95 %.
    4. Permuted labels: what is learned from them is worth nothing on other images.
    5. A hundredth of the run: on images it has not seen, it is nearer to the labels than the base.

Cost: the first two forward no image. The third takes 24 images a step (256 triplets of a file: up to 768) and ends as
soon as it holds: after a few steps where all is well, at the latest after a twentieth of the run's images, or 60 steps.
The other two take 20 to 200 steps each, a hundredth of the run's, of at most 32 images or 32 triplets, and forward
three times 128 images, or those of 256 triplets of a file. So a run of 400 steps of 96 images pays about 5 % where all
is well, longer ones less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.alignment.batches import Batch, any_three, packed_batch
from likemind.alignment.trainee import Student, choices, wanted_loss
from likemind.alignment.trainer import Running, Trainer, batches_ahead
from likemind.choice import choose, entropy, log_probabilities, pair_similarities
from likemind.errors import LikemindError
from likemind.progress import log
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe

LONG = 300
"""Steps from which a run is long enough for the ladder."""

_TRIPLETS, _FEW, _HELD = 256, 24, 128
_STEPS, _SHORT = (60, 500), (20, 200)
_SMALL = 32
"""Images, or triplets of a file, in a batch of a short run."""
_RATE = 2.5e-5
"""Of a short run: Adam's first steps are as long as the rate says, whatever the gradient."""


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
        whole: The sample.
        looked: Triplets of all of it.
        held: Some of its images, with triplets, which nothing is learned from.
        known: What a short run may learn from.
    """

    whole: Known
    looked: Batch
    held: Batch
    known: Known


def _sample(known: Known, recipe: Recipe, rng: np.random.Generator) -> _World:
    steps = _short_steps(recipe)
    if known.from_file(recipe):
        return _sample_of_labels(known, max(_TRIPLETS, steps * _SMALL), rng)
    count = len(known.images)
    held = min(_HELD, count // 4)
    most = min(count, held + max(1000, steps * _SMALL))
    clusters = rng.permutation(int(known.clusters.max()) + 1)[known.clusters]
    whole = _part(
        known, np.sort(np.argsort(clusters, kind="stable")[:most])
    )  # whole clusters, so that they have images
    looked = Batch(np.arange(most), any_three(rng, most, 4096))
    if held < 3:
        return _World(whole, looked, Batch(np.arange(0), np.empty((0, 3), dtype=np.int64)), whole)
    apart = np.sort(rng.permutation(most)[:held])
    learned = _part(whole, np.setdiff1d(np.arange(most), apart))
    return _World(whole, looked, Batch(apart, any_three(rng, held, 16 * held)), learned)


def _sample_of_labels(known: Known, count: int, rng: np.random.Generator) -> _World:
    labels, positions = known.labels
    assert labels.similarities is not None
    chosen = rng.permutation(len(labels))[: count + 2 * _HELD]
    images, flat = np.unique(positions[chosen], return_inverse=True)
    places, similarities = flat.reshape(-1, 3), labels.similarities[chosen]
    whole = _part(known, images)
    cut = min(2 * _HELD, len(chosen) // 4)
    seen, inside = np.unique(places[:cut], return_inverse=True)
    held = Batch(seen, inside.reshape(-1, 3), similarities[:cut])
    rest = Triplets(whole.images.ids, places[cut:], similarities=similarities[cut:], source="pseudo")
    learned = _part(whole, np.arange(len(images)))
    learned.__dict__["labels"] = (rest, places[cut:])
    return _World(whole, Batch(np.arange(len(images)), places, similarities), held, learned)


def _part(known: Known, positions: np.ndarray) -> Known:
    """Return what is known of some of the images."""
    part = replace(known, images=known.images.select([known.images.ids[position] for position in positions]))
    part.__dict__["base_rows"] = known.base_rows[positions]
    if known.teacher is not None:
        part.__dict__["taught"] = known.taught[positions]
        part.__dict__["clusters"] = known.clusters[positions]
    return part


def _labels(world: _World, recipe: Recipe) -> Rung:
    target, _ = _looked(world, recipe)
    share = float(entropy(log_probabilities(target, recipe.target_temperature)).mean()) / math.log(3)
    ties = float((choose(target) < 0).float().mean())
    return Rung(
        "labels",
        f"mean entropy {share:.1%} of guessing, {ties:.1%} ties",
        share < 0.98 and ties < 0.1,
        "the labels say almost nothing; look at the teacher's scale (--set target_temperature, sharpness)",
    )


def _base(world: _World, human: Recipe) -> Rung:
    target, cosines = _looked(world, human)
    found = float((choose(cosines) == target.argmax(1)).float().mean())
    nothing = found > 0.999 and not world.whole.control
    return Rung(
        "agreement of the labels with the base model",
        f"{found:.1%}, chance 33.3 %",
        found > 1 / 3 + 0.02 + 0.3 / math.sqrt(len(world.looked.images)) and not nothing,
        "the base model says all of it already, there is nothing to learn"
        if nothing
        else "the labels seem to be of other images, or the base model has not been trained",
    )


def _looked(world: _World, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is wanted of the triplets, and the base model's cosines."""
    student = Student.start(world.whole.backbone, world.whole, recipe, 0)
    pooled = torch.from_numpy(world.whole.base_rows[world.looked.images])
    target, _ = choices(student, pooled, world.looked, world.whole, recipe)
    rows = torch.nn.functional.normalize(pooled - student.centre)
    return target, pair_similarities(rows, torch.from_numpy(world.looked.triplets))


def _overfit(world: _World, human: Recipe, seed: int, running: Running) -> Rung:
    changes = {"objective": "hard", "pull": 0.0, "triplets": _TRIPLETS, "images": _FEW, "clusters": 4}
    plan = human.model_copy(update=changes)
    batch_of_run = 3 * human.triplets if human.batching == "independent" else human.images
    if world.known.from_file(human):
        batch = world.known.batch(plan, seed, 0)
    else:
        plan = plan.model_copy(update={"batching": "packed"})
        batch = packed_batch(world.known.clusters, plan, seed, 0)
    most = int(np.clip(human.steps * batch_of_run // 20 // len(batch.images), *_STEPS))
    no_more = replace(running, images_at_once=running.images_at_once or batch_of_run)  # memory than the run itself
    trainer = Trainer(_at_start(world, plan, seed), world.known, plan, no_more)
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
    start = Trainer(_at_start(world, recipe, seed), world.known, recipe, running)
    before = _judge(start, world.held, world.whole, recipe)
    after = _judge(_run(world.known, recipe, seed, running), world.held, world.whole, recipe)
    return Rung(
        f"a run of {_short_steps(recipe)} steps",
        f"on other images loss {before[0]:.4f} → {after[0]:.4f}, agreement {before[1]:.1%} → {after[1]:.1%}",
        after[0] < before[0] or before[1] > 0.99,
        "the first steps lead away from the labels; look at the labels, and at what learns (--set tuning)",
    )


def _short_steps(recipe: Recipe) -> int:
    return int(np.clip(recipe.steps // 100, *_SHORT))


def _run(known: Known, recipe: Recipe, seed: int, running: Running) -> Trainer:
    """Train for a hundredth of the run's steps, in small batches, at a gentle rate; it rises over the first quarter."""
    steps = _short_steps(recipe)
    small = {"images": min(_SMALL, recipe.images), "clusters": min(_SMALL // 4, recipe.clusters)}
    if recipe.batching == "independent":
        small["triplets"] = min(_SMALL, recipe.triplets)
    plan = recipe.model_copy(update=small)
    trainer = Trainer(Student.start(known.backbone, known, plan, seed), known, plan, running)
    share = min(1.0, _RATE / recipe.learning_rate)
    for step, batch, pixels in batches_ahead(
        known, ((step, known.batch(plan, seed, step)) for step in range(steps)), trainer
    ):
        trainer.step(batch, pixels, share * min(1.0, 4 * (step + 1) / steps), what="on the ladder")
    return trainer


@torch.no_grad()
def _judge(trainer: Trainer, held: Batch, whole: Known, recipe: Recipe) -> tuple[float, float]:
    """Return the loss on held-out images, and the share of triplets where the labels' choice is made."""
    ((_, _, pixels),) = batches_ahead(whole, [(0, held)], trainer)
    pooled = torch.from_numpy(whole.base_rows[held.images]) if pixels is None else trainer.outputs(pixels).cpu()
    student = trainer.student.cpu()
    target, similarity = choices(student, pooled, held, whole, recipe)
    loss = wanted_loss(target, similarity, recipe)
    return float(loss), float((choose(similarity) == target.argmax(1)).float().mean())


def _at_start(world: _World, recipe: Recipe, seed: int = 0) -> Student:
    return Student.start(world.whole.backbone, world.whole, recipe, seed)


def _mixed_up(known: Known, rng: np.random.Generator) -> Known:
    other = replace(known)
    other.__dict__ |= known.__dict__ | {"taught": known.taught[rng.permutation(len(known.images))]}
    return other


def _shuffled(similarities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permuted(similarities, axis=1)

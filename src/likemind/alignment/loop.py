"""The loop: one step after another over Accelerate, on one process or several, to be killed and continued at will."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from likemind.alignment.checkpoint import BEST, LAST, Standing, load_checkpoint, save_checkpoint
from likemind.alignment.recipe import rate
from likemind.alignment.trainer import Running, Trainer, batches_ahead, not_finite
from likemind.progress import Metrics, log, track

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe
    from likemind.alignment.retention import Validation
    from likemind.alignment.trainee import Student


def train(
    student: Student,
    known: Known,
    recipe: Recipe,
    seed: int,
    folder: Path,
    running: Running,
    validation: Validation | None = None,
) -> Standing:
    """Train a student as its recipe says, from where the checkpoint in ``folder`` stands.

    Args:
        student: To be trained, in place.
        known: The images, and what is known of them.
        recipe: Says how.
        seed: Of the batches.
        folder: For ``checkpoint.safetensors``, ``best.safetensors`` and ``metrics.jsonl``.
        running: How it is carried out.
        validation: Where to look how it goes, on the first process.

    Raises:
        LikemindError: The loss or a weight is not finite, memory runs out, or the checkpoint is not of this run.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(  # it can be told of bfloat16 once a process; so the trainer casts
        mixed_precision="no", log_with=running.tracker, project_dir=folder / "tracker"
    )
    trainer = Trainer(student, known, recipe, running, accelerator)
    standing = load_checkpoint(folder / LAST, student.learning, trainer.optimizer, student.about.fingerprint)
    metrics = Metrics(folder / "metrics.jsonl", keep=standing.step) if accelerator.is_main_process else None
    if running.tracker is not None:
        accelerator.init_trackers("likemind", config=_flat(recipe))
    steps = range(standing.step, standing.step if _is_over(standing, recipe) else recipe.steps)
    batches = batches_ahead(known, ((step, known.batch(recipe, seed, step)) for step in steps), trainer)
    for step, batch, pixels in track(batches, total=recipe.steps, done=standing.step, what="align (steps)"):
        values = trainer.step(batch, pixels, rate(step, recipe), what=f"at step {step}")
        standing.step = step + 1
        if recipe.validate_every and standing.step % recipe.validate_every == 0:
            values |= _look(trainer, validation, standing, folder)
        if metrics is not None:
            metrics.write(step, **values)
        accelerator.log(values, step=step)
        over = standing.step == recipe.steps or _is_over(standing, recipe)
        if standing.step % recipe.checkpoint_every == 0 or over:
            _save(trainer, standing, folder / LAST)
        if over:
            break
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # end_training would end the processes' talk too
        tracker.finish()
    if recipe.patience and standing.best is not None:
        log.info(
            "align: the best agreement on validation objects was at step %d of %d", standing.best_step, standing.step
        )
        load_checkpoint(folder / BEST, student.learning, None, student.about.fingerprint)
    return standing


def _look(trainer: Trainer, validation: Validation | None, standing: Standing, folder: Path) -> dict[str, float]:
    """Return each layer's agreement on validation objects; keep the weights where that of what learns is the best."""
    found: dict[str, float] = {}
    if validation is not None:
        student = trainer.student
        model = student.model(replace(student.about, module=student.backbone))
        rows = model.embeddings(validation.pooled(model))
        found = {layer: float(validation.agreement(rows[layer]).mean()) for layer in rows if layer != "shipped"}
    found = trainer.from_first(found)
    if not found:
        return {}
    value = found["head" if trainer.recipe.target == "paper" else "backbone"]
    if standing.best is None or value > standing.best:
        standing.best, standing.best_step, standing.looks = value, standing.step, 0
        _save(trainer, standing, folder / BEST)
    else:
        standing.looks += 1
    return {f"validation_{layer}": agreement for layer, agreement in found.items()}


def _save(trainer: Trainer, standing: Standing, path: Path) -> None:
    learning = trainer.student.learning
    if not all(bool(value.isfinite().all()) for value in learning.values()):
        raise not_finite("a weight", f"at step {standing.step - 1}")
    if trainer.first:
        save_checkpoint(path, learning, trainer.optimizer, standing, trainer.student.about.fingerprint)


def _is_over(standing: Standing, recipe: Recipe) -> bool:
    return bool(recipe.patience) and standing.looks >= recipe.patience


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as trackers take it."""
    return {name: value if isinstance(value, (str, int, float)) else str(value) for name, value in recipe}

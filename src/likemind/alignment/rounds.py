"""Rounds: the head on one student teaches the next, which starts again from the first weights."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from likemind.alignment.checkpoint import BEST, LAST
from likemind.alignment.loop import train
from likemind.alignment.trainee import Student
from likemind.features.embed import embed
from likemind.features.store import FeatureStore
from likemind.progress import log

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.alignment.checkpoint import Standing
    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe
    from likemind.alignment.retention import Validation
    from likemind.alignment.trainer import Running


def train_rounds(
    known: Known, recipe: Recipe, seed: int, folder: Path, running: Running, validation: Validation | None = None
) -> tuple[Student, Standing]:
    """Train a student in as many rounds as its recipe says, from where those in ``folder`` stand.

    The teacher's map on top of a trained student agrees with people more than the teacher did. So it teaches the next
    round, whose student starts from the first weights again (born-again networks, Furlanello et al. 2018,
    https://arxiv.org/abs/1805.04770). A student of another backbone than the teacher's has no such map on top, and one
    round.

    Args:
        known: The images, and what is known of them; ends as the last round knows it.
        recipe: Says how.
        seed: Of the batches, alike in all rounds.
        folder: Of the run; an earlier round has ``round-1``, ``round-2``, … in it.
        running: How it is carried out.
        validation: Where to look how it goes, on the first process.

    Returns:
        The last round's student, and where its training stands.
    """
    rounds = recipe.rounds if known.own_teacher else 1
    if rounds < recipe.rounds:
        log.info("align: one round, since the teacher stands on another backbone than the student")
    for number in range(1, rounds):
        log.info("align: round %d of %d", number, rounds)
        known.teach_again(_student_features(known, recipe, seed, folder / f"round-{number}", running, validation))
    return _trained(known, recipe, seed, folder, running, validation)


def _trained(
    known: Known, recipe: Recipe, seed: int, folder: Path, running: Running, validation: Validation | None
) -> tuple[Student, Standing]:
    """Return one round's student, and where its training stands."""
    student = Student.start(known.backbone, known, recipe, seed)
    return student, train(student, known, recipe, seed, folder, running, validation)


def _student_features(
    known: Known, recipe: Recipe, seed: int, folder: Path, running: Running, validation: Validation | None
) -> FeatureStore:
    """Return a round's student's features of all images; it is trained first unless they are there."""
    from accelerate import PartialState

    out = folder / "features"
    if not out.exists():
        folder.mkdir(exist_ok=True)
        student, _ = _trained(known, recipe, seed, folder, running, validation)
        if PartialState().is_main_process:
            embed(known.images, student.cpu().at(1.0).backbone, out=out)
        PartialState().wait_for_everyone()
    return FeatureStore.load(out)


def clear_rounds(folder: Path) -> None:
    """Remove what earlier rounds have left, but for their ``metrics.jsonl``."""
    for place in folder.glob("round-*"):
        shutil.rmtree(place / "features", ignore_errors=True)
        for name in (LAST, BEST):
            (place / name).unlink(missing_ok=True)

"""The parts of the suite that need labels alone: learning new classes, and what lies together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from likemind.episodes import chance, draw_episodes
from likemind.evaluation.context import Scored
from likemind.evaluation.fewshot import fewshot
from likemind.evaluation.structure import grouping

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from likemind.evaluation.context import Context, Subject

SHOTS = (1, 5)


class Generalisation:
    """Learning classes that nothing in the training showed."""

    def __init__(self, context: Context) -> None:
        few = context.data.select(fewshot="heldout")
        categories = [item.category for item in few]
        self.seed = context.seed
        self.prefix = context.data.description.tasks or f"{context.name}/heldout"
        self._rows = context.rows_of([item.id for item in few])
        self._tasks: dict[int, Any] = {k: draw_episodes(categories, k, self.seed) for k in SHOTS} if few else {}

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        yield from self.fewshot(self.prefix, subject.rows)

    def fewshot(self, prefix: str, rows: np.ndarray) -> Iterator[Scored]:
        """Yield few-shot accuracy, also for rows under a shift."""
        for k, tasks in self._tasks.items():
            guess = chance(tasks)
            value = fewshot(rows[self._rows], tasks, self.seed)
            yield Scored(f"{prefix}/fewshot.k{k}", value, guess, 1.0, source="labels")
            value = fewshot(rows[self._rows], tasks, self.seed, method="centroid")
            yield Scored(f"{prefix}/centroid.k{k}", value, guess, 1.0, source="labels")


class Structure:
    """Do things lie together by meaning?"""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._grouped = [item for item in context.data.select("heldout") if item.group]
        self._rows = context.rows_of([item.id for item in self._grouped])

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        groups = [item.group for item in self._grouped]
        if len(set(groups)) > 1:
            value = grouping(subject.rows[self._rows], groups, self.context.seed)
            metric = f"{self.context.name}/heldout/grouping.ami"
            yield Scored(metric, value, chance=0.0, ceiling=1.0, source="labels")

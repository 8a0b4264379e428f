"""Learning new categories from a few examples, with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from likemind.episodes import Episode, accuracies
from likemind.evaluation.intervals import Resampled, mean_estimate

if TYPE_CHECKING:
    import numpy as np


def fewshot(
    embedding: np.ndarray, tasks: list[Episode], seed: int, *, method: Literal["ridge", "centroid"] = "ridge"
) -> Resampled:
    """Return the accuracy over tasks; tasks are what is resampled.

    Args:
        embedding: (rows, d), unit rows.
        tasks: From ``draw_episodes``.
        seed: Of the resampling.
        method: As for ``likemind.episodes.accuracies``.
    """
    return mean_estimate(accuracies(embedding, tasks, method), seed)

"""What to ship: the most human embedding that still learns new categories as well as the base did.

Candidates are the backbone, the head and their mixes β, each at several interpolations α of the weights. Agreement and
5-shot accuracy are measured on validation objects, which neither teacher nor student has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from likemind.choice import fit_temperature
from likemind.evaluation.fewshot import Episode, draw_episodes, fewshot
from likemind.evaluation.odd_one_out import Trials, agreement, similarities
from likemind.features.embed import embed_rows
from likemind.student.model import AlignedModel, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from likemind.alignment.recipe import Recipe
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.images.collection import ImageCollection

SHOTS = 5
EPISODES = 60


@dataclass(frozen=True)
class Candidate:
    """One way to ship, and what it gives on validation objects.

    Attributes:
        shipped: ``backbone``, ``head`` or ``mix``.
        alpha: Interpolation of the weights; 0 is the base.
        beta: Share of the head.
        agreement: Mean probability, under people's distribution, of the model's choice.
        fewshot: 5-shot accuracy (ridge); NaN where no categories were held out.
    """

    shipped: Literal["backbone", "head", "mix"]
    alpha: float
    beta: float
    agreement: float
    fewshot: float


class Validation:
    """Validation objects, ready to be asked about many candidates."""

    def __init__(self, data: EvaluationSet, seed: int) -> None:
        self.ids = [item.id for item in data.select("validation")]
        self.images: ImageCollection = data.images().select(self.ids)
        self.trials = Trials.of(data.judgements("validation"), self.ids, f"the validation items of {data.path}")
        self._few = [item for item in data.select("validation") if item.fewshot == "validation"]
        place = {name: row for row, name in enumerate(self.ids)}
        self._few_rows = np.array([place[item.id] for item in self._few], dtype=int)
        self._seed = seed
        self._tasks: list[Episode] = []
        if self._few:
            categories = [item.category for item in self._few]
            self._tasks = draw_episodes(categories, SHOTS, seed, episodes=EPISODES)

    def pooled(self, model: AlignedModel) -> np.ndarray:
        """Return the backbone's output for the validation images."""
        return embed_rows(self.images, range(len(self.images)), model.backbone)[0]

    def agreement(self, rows: np.ndarray) -> float:
        """Return the agreement of an embedding of the validation images."""
        return float(agreement(similarities(rows, self.trials), self.trials.people).mean())

    def fewshot(self, rows: np.ndarray) -> float:
        """Return the 5-shot accuracy of an embedding, or NaN where no categories were held out."""
        return fewshot(rows[self._few_rows], self._tasks, self._seed).value if self._tasks else float("nan")

    def temperature(self, rows: np.ndarray) -> float:
        """Return the temperature at which the embedding's choices fit people's best."""
        return fit_temperature(similarities(rows, self.trials), torch.from_numpy(self.trials.people))


def measure(
    model_at: Callable[[float], AlignedModel], recipe: Recipe, validation: Validation, *, head: bool
) -> tuple[Candidate, list[Candidate]]:
    """Return the base and all candidates, measured.

    Args:
        model_at: The student at an interpolation α.
        recipe: Says which α and β.
        validation: Where to measure.
        head: Whether the head is a candidate.
    """

    def candidate(kind: Literal["backbone", "head", "mix"], alpha: float, beta: float, rows: np.ndarray) -> Candidate:
        return Candidate(kind, alpha, beta, validation.agreement(rows), validation.fewshot(rows))

    untouched = model_at(0.0)
    base = candidate("backbone", 0.0, 0.0, untouched.embeddings(validation.pooled(untouched))["backbone"])
    found = []
    for alpha in recipe.alphas:
        model = model_at(alpha)
        rows = model.embeddings(validation.pooled(model))
        found.append(candidate("backbone", alpha, 0.0, rows["backbone"]))
        if head:
            found += [candidate("mix", alpha, b, mix(rows["backbone"], rows["head"], b)) for b in recipe.betas]
            found.append(candidate("head", alpha, 1.0, rows["head"]))
    return base, found


def choose_shipped(base: Candidate, candidates: list[Candidate], max_loss: float) -> Candidate:
    """Return the most aligned candidate whose 5-shot accuracy is at most ``max_loss`` points below the base's.

    Where none keeps that much, the one that keeps most. Where few-shot could not be measured, the most aligned backbone.

    Example:
        >>> base = Candidate("backbone", 0.0, 0.0, 0.40, 0.60)
        >>> far, near = Candidate("head", 1.0, 1.0, 0.50, 0.50), Candidate("mix", 1.0, 0.5, 0.45, 0.60)
        >>> choose_shipped(base, [far, near], 0.5) == near
        True
    """
    if np.isnan(base.fewshot):
        return max((c for c in candidates if c.shipped == "backbone"), key=lambda c: c.agreement)
    kept = [c for c in candidates if c.fewshot >= base.fewshot - max_loss / 100]
    return max(kept, key=lambda c: c.agreement) if kept else max(candidates, key=lambda c: (c.fewshot, c.agreement))

"""What to ship: the most human embedding that still learns new categories as well as the base did.

Candidates are the backbone, the head and their mixes β, each at several interpolations α of the weights. Agreement and
few-shot accuracy (the mean of 1- and 5-shot) are measured on validation objects, which neither teacher nor student has
seen. 1-shot counts too: it is what an embedding of few dimensions loses first, when 5-shot still looks as before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from likemind.alignment.zeroshot import ZeroShot
from likemind.backbones.text import text_tower
from likemind.choice import fit_temperature
from likemind.episodes import Episode, draw_episodes
from likemind.evaluation.fewshot import fewshot
from likemind.evaluation.odd_one_out import Trials, agreement, similarities
from likemind.features.embed import embed_rows
from likemind.student.model import AlignedModel, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from likemind.alignment.recipe import Recipe
    from likemind.backbones.base import Backbone
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.images.collection import ImageCollection

SHOTS = (1, 5)
EPISODES = 60


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to ship, and what it gives on validation objects.

    Attributes:
        shipped: ``backbone``, ``head`` or ``mix``.
        alpha: Interpolation of the weights; 0 is the base.
        beta: Share of the head.
        by_triplet: (n,) people's probability of the model's choice on each validation triplet.
        fewshot: Mean of 1- and 5-shot accuracy (ridge); NaN where no categories were held out.
        zeroshot: Accuracy beside the untouched text tower, of an image–text backbone; None of others.
    """

    shipped: Literal["backbone", "head", "mix"]
    alpha: float
    beta: float
    by_triplet: np.ndarray
    fewshot: float
    zeroshot: float | None = None

    @property
    def agreement(self) -> float:
        """Mean probability, under people's distribution, of the model's choice."""
        return float(self.by_triplet.mean())

    def figures(self) -> dict[str, Any]:
        """Return what is written down of it."""
        told = {
            "shipped": self.shipped,
            "alpha": self.alpha,
            "beta": self.beta,
            "agreement": self.agreement,
            "fewshot": self.fewshot,
        }
        return told if self.zeroshot is None else told | {"zeroshot": self.zeroshot}


class Validation:
    """Validation objects, ready to be asked about many candidates.

    Args:
        data: The evaluation folder.
        seed: Of the few-shot episodes.
        backbone: The student's, as it was before; the text tower that it came with tells the zero-shot accuracy.

    Attributes:
        zeroshot: What tells it; None of a backbone without a text tower.
    """

    def __init__(self, data: EvaluationSet, seed: int, backbone: Backbone) -> None:
        self.data = data
        self.ids = [item.id for item in data.select("validation")]
        self.images: ImageCollection = data.images().select(self.ids)
        self.trials = Trials.of(data.judgements("validation"), self.ids, f"the validation items of {data.path}")
        self._few = [item for item in data.select("validation") if item.fewshot == "validation"]
        place = {name: row for row, name in enumerate(self.ids)}
        self._few_rows = np.array([place[item.id] for item in self._few], dtype=int)
        self._seed = seed
        self._tasks: list[list[Episode]] = []
        if self._few:
            categories = [item.category for item in self._few]
            self._tasks = [draw_episodes(categories, k, seed, episodes=EPISODES) for k in SHOTS]
        tower = text_tower(backbone)
        self.zeroshot = ZeroShot(tower, [item.category for item in data.select("validation")]) if tower else None

    def pooled(self, model: AlignedModel) -> np.ndarray:
        """Return the backbone's output for the validation images."""
        return embed_rows(self.images, range(len(self.images)), model.backbone)[0]

    def agreement(self, rows: np.ndarray) -> np.ndarray:
        """Return the agreement of an embedding of the validation images, triplet by triplet."""
        return agreement(similarities(rows, self.trials), self.trials.people)

    def fewshot(self, rows: np.ndarray) -> float:
        """Return the mean of an embedding's 1- and 5-shot accuracy, or NaN where no categories were held out."""
        few = rows[self._few_rows]
        return float(np.mean([fewshot(few, tasks, self._seed).value for tasks in self._tasks] or [np.nan]))

    def temperature(self, rows: np.ndarray) -> float:
        """Return the temperature at which the embedding's choices fit people's best."""
        return fit_temperature(similarities(rows, self.trials), torch.from_numpy(self.trials.people))


def measure(
    model_at: Callable[[float], AlignedModel], recipe: Recipe, validation: Validation
) -> tuple[Candidate, list[Candidate]]:
    """Return the base and all candidates, measured.

    Args:
        model_at: The student at an interpolation α.
        recipe: Says which α and β.
        validation: Where to measure.
    """

    def candidate(kind: Literal["backbone", "head", "mix"], alpha: float, beta: float, rows: np.ndarray) -> Candidate:
        return Candidate(kind, alpha, beta, validation.agreement(rows), validation.fewshot(rows))

    untouched = model_at(0.0)
    pooled, zeroshot = validation.pooled(untouched), validation.zeroshot

    def backbone(alpha: float, rows: np.ndarray, pooled: np.ndarray) -> Candidate:
        found = candidate("backbone", alpha, 0.0, rows)
        return replace(found, zeroshot=zeroshot.accuracy(pooled)) if zeroshot else found

    base = backbone(0.0, untouched.embeddings(pooled)["backbone"], pooled)
    found = []
    for alpha in recipe.alphas:
        model = model_at(alpha)
        pooled = validation.pooled(model)
        rows = model.embeddings(pooled)
        found.append(backbone(alpha, rows["backbone"], pooled))
        if "head" in rows:
            found += [candidate("mix", alpha, b, mix(rows["backbone"], rows["head"], b)) for b in recipe.betas]
            found.append(candidate("head", alpha, 1.0, rows["head"]))
    return base, found


def choose_shipped(base: Candidate, candidates: list[Candidate], max_loss: float) -> Candidate:
    """Return the most aligned candidate that keeps the base's few-shot accuracy, or a plainer one that is as good.

    Kept are candidates at most ``max_loss`` points of few-shot accuracy below the base (all that keep most, where none
    does). Of these, every one whose agreement is within two standard errors of the best one's, triplet by triplet,
    counts as just as aligned, and the plainest is shipped: a backbone before a head before a mix, then the one that is
    nearest to the fully trained weights. Where few-shot could not be measured only backbones are candidates.

    Example:
        >>> base = Candidate("backbone", 0.0, 0.0, np.array([0.4, 0.4]), 0.60)
        >>> far = Candidate("head", 1.0, 1.0, np.array([0.5, 0.5]), 0.50)
        >>> near = Candidate("mix", 1.0, 0.5, np.array([0.45, 0.45]), 0.60)
        >>> choose_shipped(base, [far, near], 0.5).shipped
        'mix'
    """
    if np.isnan(base.fewshot):
        kept = [c for c in candidates if c.shipped == "backbone"]
    else:
        floor = min(base.fewshot - max_loss / 100, max(c.fewshot for c in candidates))
        kept = [c for c in candidates if c.fewshot >= floor]
    best = max(kept, key=lambda c: c.agreement)
    as_good = [c for c in kept if _not_below(c.by_triplet, best.by_triplet)]
    return min(as_good, key=lambda c: (("backbone", "head", "mix").index(c.shipped), -c.alpha, -c.agreement))


def _not_below(ours: np.ndarray, best: np.ndarray) -> bool:
    loss = best - ours
    return bool(loss.mean() <= 2 * loss.std() / np.sqrt(len(loss)))

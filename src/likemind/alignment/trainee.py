"""The student while it trains: its network, its triplet head, and what it is asked for."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from likemind.choice import choose, gather_pairs, pair_similarities
from likemind.student.lora import merge_lora, with_lora
from likemind.student.losses import choice_loss, row_loss
from likemind.student.model import AlignedModel, ModelConfig

if TYPE_CHECKING:
    import numpy as np

    from likemind.alignment.batches import Batch
    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe
    from likemind.backbones.base import Backbone
    from likemind.teacher.teacher import Teacher

HEAD_WIDTH = 1024


class Student(nn.Module):
    """A backbone in training, with its triplet head and the weights that both started from.

    For the ``paper`` target the head is trained. For the ``mixture`` the backbone itself learns, and the head is the
    teacher's own map, carried along on top (none, where the teacher stands on another backbone).

    Norms keep their stored statistics and dropout stays off, so that packed batches, single triplets and interpolated
    weights all mean the same network.

    Attributes:
        about: The backbone as it was.
        start_weights: The first values of all that learns, by name.
    """

    centre: Tensor

    def __init__(
        self, backbone: Backbone, centre: np.ndarray, head: nn.Linear | None, about: Backbone | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.about = backbone.module, head, about or backbone
        self.register_buffer("centre", torch.from_numpy(centre))
        self.start_weights = {name: value.detach().clone() for name, value in self.learning.items()}

    @classmethod
    def start(cls, backbone: Backbone, known: Known, recipe: Recipe, seed: int) -> Student:
        """Build a student from a copy of the backbone, of which learns what the recipe says; so starts its head."""
        if recipe.tuning == "full":
            copy = replace(backbone, module=deepcopy(backbone.module).requires_grad_(True))
        else:
            copy = with_lora(backbone, recipe.rank if recipe.tuning == "lora" else 0, seed=seed)
        head: nn.Linear | None = None
        if known.own_teacher and recipe.head == "teacher":
            head = _teacher_head(known.source)
        elif recipe.target == "paper":
            head = _random_head(backbone.dim, seed)
        if head is not None:
            head.requires_grad_(recipe.target == "paper")
        return cls(copy, known.base_rows.mean(axis=0), head, backbone)

    @property
    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def train(self, mode: bool = True) -> Student:  # noqa: ARG002
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the backbone's pooled output, (n, d)."""
        output: Tensor = self.backbone(pixels)
        return output

    def at(self, alpha: float) -> AlignedModel:
        """Return the model whose weights lie at θ₀ + α(θ − θ₀), LoRA added up; the head moves along."""
        shared = {id(one): one for one in (self.about, self.start_weights)}
        moved = deepcopy(self, shared)
        with torch.no_grad():
            for name, value in moved.learning.items():
                first = self.start_weights[name].to(value.device)
                if alpha != 1.0 and "lora_" not in name:
                    value.copy_(first + alpha * (value - first))
        backbone = replace(self.about, module=moved.backbone)
        lora = any("lora_" in name for name in self.start_weights)
        return moved.model(merge_lora(backbone, alpha) if lora else backbone, alpha)

    def model(self, backbone: Backbone, alpha: float = 1.0) -> AlignedModel:
        """Return a model of this head on a backbone."""
        model = AlignedModel(backbone, self.centre.cpu().numpy(), ModelConfig(alpha=alpha))
        if self.head is not None:
            model.head_weight = self.head.weight.detach().cpu().numpy()
            model.head_bias = self.head.bias.detach().cpu().numpy()
        return model


def _teacher_head(teacher: Teacher) -> nn.Linear:
    """The teacher's map as a linear layer on the backbone's raw output."""
    head = nn.Linear(*teacher.weights_.shape)
    weight = teacher.weights_.T / teacher.scale_
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(teacher.bias_ - weight @ teacher.mean_))
    return head


def _random_head(width: int, seed: int) -> nn.Linear:
    """Flax's Dense: variance 1/fan-in, truncated at two deviations; zero bias."""
    head = nn.Linear(width, HEAD_WIDTH)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        deviation = math.sqrt(1 / width) / 0.87962566103423978
        nn.init.trunc_normal_(head.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
        head.bias.zero_()
    return head


def student_loss(student: Student, pooled: Tensor, batch: Batch, known: Known, recipe: Recipe) -> dict[str, Tensor]:
    """Return the loss and its parts for one batch, and the share of triplets where both choose the same pair.

    Shapes:
        pooled: (b, d), the backbone's output for the batch's images, float32.
    """
    whole = _grams(student, pooled, batch, known, recipe) if _within(recipe) else None
    target, similarity = choices(student, pooled, batch, known, recipe, whole)
    loss = wanted_loss(target, similarity, recipe)
    parts = {"loss": loss}
    if whole is not None:
        rows = row_loss(*whole)
        parts = {"loss": loss + recipe.row_weight * rows, "triplets": loss, "rows": rows}
    return {**parts, "accuracy": (choose(similarity) == target.argmax(dim=1)).float().mean()}


def wanted_loss(target: Tensor, similarity: Tensor, recipe: Recipe) -> Tensor:
    """Return the recipe's objective between the similarities that are wanted of each triplet and the student's."""
    return choice_loss(
        target,
        similarity,
        objective=recipe.objective,
        target_temperature=recipe.target_temperature,
        temperature=recipe.temperature,
    )


def choices(
    student: Student,
    pooled: Tensor,
    batch: Batch,
    known: Known,
    recipe: Recipe,
    whole: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the similarities of each triplet's pairs: those that are wanted, and the student's.

    Args:
        student: Its head and its centre are used.
        pooled: (b, d), the backbone's output for the batch's images.
        batch: Images and triplets.
        known: What is wanted.
        recipe: Says how they are compared.
        whole: The same for all pairs of images, where that is at hand.

    Returns:
        Two of (t, 3), in the order 01, 02, 12.
    """
    triplets = torch.from_numpy(batch.triplets).to(pooled.device)
    if whole is not None:
        return gather_pairs(whole[0], triplets), gather_pairs(whole[1], triplets)
    if recipe.target == "mixture":
        old, human, new = (pair_similarities(rows, triplets) for rows in _mixture(student, pooled, batch, known))
        return recipe.sharpness * ((1 - recipe.beta) * old + recipe.beta * human), recipe.sharpness * new
    assert student.head is not None
    rows = student.head(pooled)
    if recipe.similarity == "cosine":
        rows = nn.functional.normalize(rows)
    if batch.similarities is not None:
        return torch.from_numpy(batch.similarities).to(pooled.device), pair_similarities(rows, triplets)
    taught = _rows(known.taught, batch, pooled)
    if len(triplets) < len(batch.images):
        return pair_similarities(taught, triplets), pair_similarities(rows, triplets)
    return gather_pairs(taught @ taught.T, triplets), gather_pairs(rows @ rows.T, triplets)


def _within(recipe: Recipe) -> bool:
    """Whether all pairs of a batch's images are compared."""
    return recipe.target == "mixture" and recipe.batching == "packed"


def _grams(student: Student, pooled: Tensor, batch: Batch, known: Known, recipe: Recipe) -> tuple[Tensor, Tensor]:
    old, human, new = _mixture(student, pooled, batch, known)
    wanted = (1 - recipe.beta) * old @ old.T + recipe.beta * human @ human.T
    return recipe.sharpness * wanted, recipe.sharpness * new @ new.T


def _mixture(student: Student, pooled: Tensor, batch: Batch, known: Known) -> tuple[Tensor, Tensor, Tensor]:
    """Return the unit rows of the student's old features, of the teacher's, and of the student's new ones."""
    base, taught = (_rows(features, batch, pooled) for features in (known.base_rows, known.taught))
    rows = (base - student.centre, taught, pooled - student.centre)
    old, human, new = (nn.functional.normalize(one) for one in rows)
    return old, human, new


def _rows(features: np.ndarray, batch: Batch, like: Tensor) -> Tensor:
    return torch.from_numpy(features[batch.images]).to(like.device)

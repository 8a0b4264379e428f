"""The student while it trains: its network, its triplet head, and what it is asked for."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from likemind.choice import log_probabilities, pair_similarities
from likemind.student.losses import jensen_shannon, row_loss, triplet_loss
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
    """

    centre: Tensor

    def __init__(self, backbone: Backbone, centre: np.ndarray, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone, self.head, self.about = backbone.module, head, backbone
        self.register_buffer("centre", torch.from_numpy(centre))
        self.start_weights = {name: value.detach().clone() for name, value in self.named_parameters()}

    @classmethod
    def start(cls, backbone: Backbone, known: Known, recipe: Recipe, seed: int) -> Student:
        """Build a student from a copy of the backbone, whose head starts as the recipe says."""
        backbone = replace(backbone, module=deepcopy(backbone.module).requires_grad_(True))
        head: nn.Linear | None = None
        if known.own_teacher and recipe.head == "teacher":
            head = _teacher_head(known.source)
        elif recipe.target == "paper":
            head = _random_head(backbone.dim, seed)
        if head is not None:
            head.requires_grad_(recipe.target == "paper")
        return cls(backbone, known.base_rows.mean(axis=0), head)

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
        """Return the model whose weights lie at θ₀ + α(θ − θ₀); the head moves along."""
        moved = deepcopy(self)
        with torch.no_grad():
            for name, value in moved.named_parameters():
                first = self.start_weights[name].to(value.device)
                value.copy_(first + alpha * (value - first) if alpha != 1.0 else value)
        model = AlignedModel(
            replace(self.about, module=moved.backbone), self.centre.cpu().numpy(), ModelConfig(alpha=alpha)
        )
        if moved.head is not None:
            model.head_weight = moved.head.weight.detach().cpu().numpy()
            model.head_bias = moved.head.bias.detach().cpu().numpy()
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
    """Return the loss and its parts for one batch.

    Shapes:
        pooled: (b, d), the backbone's output for the batch's images, float32.
    """
    triplets = torch.from_numpy(batch.triplets).to(pooled.device)
    if recipe.target == "paper":
        return {"loss": _paper_loss(student, pooled, batch, triplets, known, recipe)}
    base, taught = (_rows(features, batch, pooled) for features in (known.base_rows, known.taught))
    old = nn.functional.normalize(base - student.centre)
    human = nn.functional.normalize(taught)
    new = nn.functional.normalize(pooled - student.centre)
    target = recipe.sharpness * ((1 - recipe.beta) * old @ old.T + recipe.beta * human @ human.T)
    similarity = recipe.sharpness * new @ new.T
    parts = {"triplets": triplet_loss(target, similarity, triplets), "rows": row_loss(target, similarity)}
    return {"loss": parts["triplets"] + recipe.row_weight * parts["rows"], **parts}


def _paper_loss(
    student: Student, pooled: Tensor, batch: Batch, triplets: Tensor, known: Known, recipe: Recipe
) -> Tensor:
    """JSD between softmax of the teacher's raw dot products and of the head's over τ: AligNet's released loss."""
    assert student.head is not None
    rows = student.head(pooled)
    if batch.similarities is None:
        taught = _rows(known.taught, batch, pooled)
        return triplet_loss(taught @ taught.T, rows @ rows.T, triplets, temperature=recipe.temperature)
    log_p = log_probabilities(torch.from_numpy(batch.similarities).to(pooled.device))
    log_q = log_probabilities(pair_similarities(rows, triplets), recipe.temperature)
    return jensen_shannon(log_p, log_q).mean()


def _rows(features: np.ndarray, batch: Batch, like: Tensor) -> Tensor:
    return torch.from_numpy(features[batch.images]).to(like.device)

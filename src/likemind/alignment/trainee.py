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

    Norms keep their stored statistics and dropout stays off, so that packed batches, single triplets and interpolated
    weights all mean the same network.
    """

    centre: Tensor

    def __init__(self, backbone: Backbone, centre: np.ndarray, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head, self.about = backbone.module, head, backbone
        self.register_buffer("centre", torch.from_numpy(centre))
        self.start_weights = {name: value.detach().clone() for name, value in self.named_parameters()}

    @classmethod
    def start(cls, backbone: Backbone, known: Known, recipe: Recipe, seed: int) -> Student:
        """Build a student from a copy of the backbone, whose head starts as the recipe says."""
        backbone = replace(backbone, module=deepcopy(backbone.module).requires_grad_(True))
        centre = known.base_rows.mean(axis=0)
        if recipe.head == "teacher" and known.own_teacher:
            return cls(backbone, centre, _teacher_head(known.source))
        return cls(backbone, centre, _random_head(backbone.dim, seed))

    def train(self, mode: bool = True) -> Student:
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the backbone's pooled output, (n, d)."""
        output: Tensor = self.backbone(pixels)
        return output

    def at(self, alpha: float) -> AlignedModel:
        """Return the model whose weights lie at θ₀ + α(θ − θ₀); the head moves along."""
        module, head = deepcopy(self.backbone), deepcopy(self.head)
        with torch.no_grad():
            for part, prefix in ((module, "backbone."), (head, "head.")):
                for name, value in part.named_parameters():
                    first = self.start_weights[prefix + name].to(value.device)
                    value.copy_(first + alpha * (value - first) if alpha != 1.0 else value)
        weight, bias = head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()
        return AlignedModel(
            replace(self.about, module=module), self.centre.cpu().numpy(), ModelConfig(alpha=alpha), weight, bias
        )


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
        rows = student.head(pooled)
        if batch.similarities is not None:
            log_p = log_probabilities(torch.from_numpy(batch.similarities).to(pooled.device))
            log_q = log_probabilities(pair_similarities(rows, triplets), recipe.temperature)
            return {"loss": jensen_shannon(log_p, log_q).mean()}
        taught = _rows(known.taught, batch, pooled)
        return {"loss": triplet_loss(taught @ taught.T, rows @ rows.T, triplets, temperature=recipe.temperature)}
    taught = _rows(known.taught, batch, pooled)
    old, new = nn.functional.normalize(taught), nn.functional.normalize(pooled - student.centre)
    base = nn.functional.normalize(_rows(known.base_rows, batch, pooled) - student.centre)
    target = recipe.sharpness * ((1 - recipe.beta) * base @ base.T + recipe.beta * old @ old.T)
    similarity = recipe.sharpness * new @ new.T
    parts = {"triplets": triplet_loss(target, similarity, triplets), "rows": row_loss(target, similarity)}
    rows = student.head(pooled.detach())
    parts["head"] = triplet_loss(taught @ taught.T, rows @ rows.T, triplets, temperature=recipe.temperature)
    return {"loss": parts["triplets"] + recipe.row_weight * parts["rows"] + parts["head"], **parts}


def _rows(features: np.ndarray, batch: Batch, like: Tensor) -> Tensor:
    return torch.from_numpy(features[batch.images]).to(like.device)

"""Losses between choice distributions and between rows of similarities, in log space throughout.

Values *and* gradients stay finite however far apart the logits are: no logarithm is ever taken of a probability.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likemind.choice import log_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen–Shannon divergence of each row, in nats, between 0 and ln 2.

    JSD = ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2 (AligNet's released ``JSDTripletLoss``).

    Shapes:
        log_p, log_q: (n, k) log-probabilities. Returns (n,).

    Example:
        >>> p = torch.tensor([[1.0, 0.0, 0.0]]).log_softmax(-1)
        >>> jensen_shannon(p, p)
        tensor([0.])
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1))


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p‖q) of each row, in nats (the paper's objective; the released ``KLDTripletLoss``).

    Shapes:
        log_p, log_q: (n, k) log-probabilities. Returns (n,).
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def hard(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return −log q of the pair that p holds most likely (gLocal; the released ``ContrastiveTripletLoss``).

    Shapes:
        log_p, log_q: (n, k) log-probabilities. Returns (n,).
    """
    return -log_q.gather(-1, log_p.argmax(dim=-1, keepdim=True)).squeeze(-1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "jensen_shannon": jensen_shannon,
    "kl": kl,
    "hard": hard,
}


def choice_loss(
    target: Tensor,
    similarity: Tensor,
    *,
    objective: str = "jensen_shannon",
    target_temperature: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Return the mean divergence between the target's and the student's choices.

    Args:
        target: Similarities of the three pairs; their choice is softmax(target / τ†).
        similarity: The student's; softmax(similarity / τ).
        objective: ``jensen_shannon``, ``kl`` or ``hard``.
        target_temperature: τ†.
        temperature: τ.

    Shapes:
        target, similarity: (n, 3). Returns a scalar.

    Example:
        >>> round(choice_loss(torch.tensor([[3.0, 0, 0]]), torch.tensor([[0.0, 0, 0]]), objective="hard").item(), 4)
        1.0986
    """
    log_p, log_q = log_probabilities(target, target_temperature), log_probabilities(similarity, temperature)
    return OBJECTIVES[objective](log_p, log_q).mean()


def row_loss(target: Tensor, similarity: Tensor) -> Tensor:
    """Return the mean KL divergence between rows of softmax over the *other* images of the batch.

    It keeps the fine order among all neighbours, where a triplet asks for the best of three pairs alone.

    Shapes:
        target, similarity: (images, images). Returns a scalar, in nats.
    """
    own = torch.eye(len(target), dtype=torch.bool, device=target.device)
    log_p, log_q = (log_probabilities(rows.masked_fill(own, -1e9)) for rows in (target, similarity))
    return (log_p.exp() * (log_p - log_q)).masked_fill(own, 0.0).sum(dim=1).mean()

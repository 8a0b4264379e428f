"""Losses between choice distributions and between rows of similarities, in log space throughout.

Values *and* gradients stay finite however far apart the logits are: no logarithm is ever taken of a probability.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likemind.choice import gather_pairs, log_probabilities


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


def triplet_loss(
    target: Tensor, similarity: Tensor, triplets: Tensor, *, target_temperature: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Return the mean Jensen–Shannon divergence between the target's and the student's choices.

    Shapes:
        target, similarity: (images, images). triplets: (n, 3) rows of these. Returns a scalar.
    """
    log_p = log_probabilities(gather_pairs(target, triplets), target_temperature)
    log_q = log_probabilities(gather_pairs(similarity, triplets), temperature)
    return jensen_shannon(log_p, log_q).mean()


def row_loss(target: Tensor, similarity: Tensor) -> Tensor:
    """Return the mean KL divergence between rows of softmax over the *other* images of the batch.

    It keeps the fine order among all neighbours, where a triplet asks for the best of three pairs alone.

    Shapes:
        target, similarity: (images, images). Returns a scalar, in nats.
    """
    own = torch.eye(len(target), dtype=torch.bool, device=target.device)
    log_p, log_q = (log_probabilities(rows.masked_fill(own, -1e9)) for rows in (target, similarity))
    return (log_p.exp() * (log_p - log_q)).masked_fill(own, 0.0).sum(dim=1).mean()

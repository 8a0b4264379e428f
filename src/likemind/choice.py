"""The one model of the odd-one-out choice, in log space.

Of three items 0, 1, 2 a person picks the most similar pair; the item outside it is the odd one out. With a similarity s
for each pair, in the order 01, 02, 12,

    log p(pair) = log_softmax(s / tau)

(Muttenthaler et al. 2025, Methods; Hebart et al. 2020). Teacher, losses and evaluation all use these functions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likemind.pairs import ODD_OF_PAIR as ODD_OF_PAIR  # noqa: PLC0414 - offered here too
from likemind.pairs import PAIRS as PAIRS  # noqa: PLC0414

TIE = 1e-6
"""Two similarities that differ by less than this share of their size are a tie."""


def pair_similarities(embedding: Tensor, indices: Tensor) -> Tensor:
    """Return the dot products of the three pairs of each triplet.

    Shapes:
        embedding: (items, d), float32 or wider. indices: (n, 3). Returns (n, 3), in the order 01, 02, 12.
    """
    first, second, third = (embedding[indices[:, position]] for position in range(3))
    return torch.stack([(first * second).sum(1), (first * third).sum(1), (second * third).sum(1)], dim=1)


def gather_pairs(similarity: Tensor, indices: Tensor) -> Tensor:
    """Return the three pairs' entries of a similarity matrix.

    Shapes:
        similarity: (items, items). indices: (n, 3). Returns (n, 3), in the order 01, 02, 12.
    """
    return torch.stack([similarity[indices[:, a], indices[:, b]] for a, b in PAIRS], dim=1)


def log_probabilities(similarities: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log p(pair), in float32 or wider whatever the input's precision.

    Example:
        >>> log_probabilities(torch.tensor([[2.0, 0.0, 0.0]])).exp().round(decimals=2)
        tensor([[0.7900, 0.1100, 0.1100]])
    """
    wide = similarities if similarities.dtype == torch.float64 else similarities.float()
    return torch.log_softmax(wide / temperature, dim=-1)


def entropy(log_p: Tensor) -> Tensor:
    """Return the choice's Shannon entropy in nats, between 0 and ln 3."""
    finite = log_p.clamp(min=torch.finfo(log_p.dtype).min)  # 0 · log 0 = 0, and its gradient too
    return -(finite.exp() * finite).sum(-1)


def choose(similarities: Tensor) -> Tensor:
    """Return the pair with the largest similarity, or -1 for a tie.

    A tie is a difference of the two best under 1e-6 of their size, or NaN. It counts as wrong, so that a constant model
    scores zero.

    Shapes:
        similarities: (n, 3). Returns (n,) int64.
    """
    wide = similarities if similarities.dtype == torch.float64 else similarities.float()
    best, pair = wide.topk(2, dim=-1)
    size = best.abs().amax(dim=-1)
    clear = best[:, 0] - best[:, 1] > TIE * size
    return torch.where(clear & ~wide.isnan().any(dim=-1), pair[:, 0], torch.full_like(pair[:, 0], -1))


def agreement(similarities: Tensor, people: Tensor) -> Tensor:
    """Return people's probability of the pair that is chosen; 0 for a tie.

    Its mean is the agreement. With single answers instead of distributions it is the accuracy.

    Shapes:
        similarities: (n, 3). people: (n, 3), rows summing to one. Returns (n,).
    """
    pair = choose(similarities)
    chosen = people.gather(1, pair.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(pair >= 0, chosen, torch.zeros_like(chosen))


def fit_temperature(similarities: Tensor, target: Tensor) -> float:
    """Return the temperature that minimises the cross-entropy to the target distributions.

    One number on a log scale between 1e-4 and 1e4 times the similarities' spread, by bounded scalar search.

    Shapes:
        similarities: (n, 3). target: (n, 3), rows summing to one.
    """
    from scipy.optimize import minimize_scalar

    wide = similarities.double()
    wide = wide - wide.mean(dim=1, keepdim=True)
    spread = float(wide.std()) or 1.0

    def cross_entropy(log_ratio: float) -> float:
        log_p = log_probabilities(wide, spread * math.exp(log_ratio))
        return float(-(target.double() * log_p).sum(1).mean())

    found = minimize_scalar(cross_entropy, bounds=(-9.2, 9.2), method="bounded", options={"xatol": 1e-4})
    return spread * math.exp(float(found.x))

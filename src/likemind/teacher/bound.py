"""What a posterior over embeddings is fitted by: its prior, the evidence lower bound, and which numbers stand out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Callable

_FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True)
class Prior:
    """A spike at zero and a slab: p(x) = share · N(0, spike²) + (1 − share) · N(0, slab²).

    Example:
        >>> round(float(Prior().log_density(torch.zeros(1))[0]), 3)  # ln(.6 · 1.596 + .4 · .399)
        0.111
    """

    spike: float = 0.25
    slab: float = 1.0
    share: float = 0.6

    def __post_init__(self) -> None:
        if not (0 < self.spike <= self.slab < math.inf and 0 < self.share < 1):
            raise LikemindError(f"the prior needs 0 < spike <= slab and a share between 0 and 1, got {self}: mend it")

    def _log_parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        square = x * x
        parts = ((self.share, self.spike), (1 - self.share, self.slab))
        spike, slab = (
            (square * (-0.5 / size**2)).add_(math.log(share / size) - math.log(2 * math.pi) / 2)
            for share, size in parts
        )
        return spike, slab

    def log_density(self, x: Tensor) -> Tensor:
        """Return log p(x), elementwise."""
        return torch.logaddexp(*self._log_parts(x))

    def slope(self, x: Tensor) -> Tensor:
        """Return d log p(x) / dx, elementwise."""
        spike, slab = self._log_parts(x)
        in_spike = torch.sigmoid(spike - slab)
        return in_spike.mul_(1 / self.spike**2 - 1 / self.slab**2).add_(1 / self.slab**2).mul_(x).neg_()

    def nearest_scale(self) -> float:
        """Return the scale of the N(0, scale²) with the least KL divergence from p: of items nobody asked about."""
        from scipy.optimize import minimize_scalar

        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        at, share = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())

        def divergence(log_scale: float) -> float:
            return -log_scale - float(share @ self.log_density(at * math.exp(log_scale)))

        bounds = (math.log(self.spike) - 1, math.log(self.slab) + 1)
        return math.exp(float(minimize_scalar(divergence, bounds=bounds, method="bounded").x))


def negative_bound(
    loc: Tensor,
    log_scale: Tensor,
    noise: Tensor,
    cross_entropy: Callable[[Tensor], tuple[float, Tensor]],
    answers: float,
    prior: Prior,
) -> tuple[float, Tensor, Tensor]:
    """Return the objective for one draw of the noise, and its gradients in ``loc`` and ``log_scale``.

    The entropy of q is exact; the rest is evaluated at x = loc + scale · noise.

    Shapes:
        loc, log_scale, noise: (m, d). Returns a float and twice (m, d).
    """
    spread = log_scale.exp().mul_(noise)
    x = loc + spread
    loss, by_x = cross_entropy(x.relu())
    by_x.mul_(x > 0).sub_(prior.slope(x), alpha=1 / answers)
    entropy = float(log_scale.sum(dtype=torch.float64)) + x.numel() * (1 + math.log(2 * math.pi)) / 2
    divergence = -entropy - float(prior.log_density(x).sum(dtype=torch.float64))
    return loss + divergence / answers, by_x, spread.mul_(by_x).sub_(1 / answers)


def significant(loc: np.ndarray, scale: np.ndarray, false_discoveries: float = _FALSE_DISCOVERIES) -> np.ndarray:
    """Return which numbers are above zero, (m, d) bool, each dimension's items tested together.

    The p-value is Φ(0; loc, scale); Benjamini and Hochberg's rule (1995) bounds the share of false discoveries.
    """
    from scipy.special import ndtr

    p = ndtr(-loc.astype(np.float64) / scale)
    ordered = np.sort(p, axis=0)
    below = ordered <= false_discoveries * np.arange(1, len(p) + 1)[:, None] / len(p)
    last = len(p) - 1 - np.argmax(below[::-1], axis=0)
    bound = np.where(below.any(axis=0), ordered[last, np.arange(p.shape[1])], -1.0)
    above: np.ndarray = p <= bound
    return above

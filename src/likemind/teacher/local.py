"""What other images have around them: gLocal's local term, on all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-12


class LocalTerm:
    """Cross-entropy between each image's neighbours before and after the map.

    − mean_i Σ_{j≠i} softmax_j(cos(y_i, y_j) / τ) log softmax_j(cos(z_i, z_j) / τ)   with z = y W + b
    (Muttenthaler et al. 2023, gLocal, eq. 4).

    Args:
        features: (k, d), k at least 3.
        temperature: τ.

    Example:
        >>> term = LocalTerm(torch.eye(3, dtype=torch.float64))
        >>> round(term(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))[0], 4)  # ln 2
        0.6931
    """

    def __init__(self, features: Tensor, temperature: float = 0.1) -> None:
        self._features, self._temperature = features, temperature
        self._near = self._log_shares(_unit(features)[0]).exp()

    def _log_shares(self, unit: Tensor) -> Tensor:
        cosines = unit @ unit.T / self._temperature
        cosines.fill_diagonal_(-torch.inf)
        return cosines.log_softmax(1)

    def __call__(self, W: Tensor, b: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return the value and its gradients.

        Shapes:
            W: (d, e). b: (e,). Returns a float, (d, e) and (e,).
        """
        z = self._features @ W + b
        unit, norm = _unit(z)
        log_shares = self._log_shares(unit)
        value = -(self._near * log_shares.nan_to_num(neginf=0.0)).sum(1).mean(dtype=torch.float64)
        by_cosine = (log_shares.exp() - self._near) / (len(z) * self._temperature)
        by_unit = (by_cosine + by_cosine.T) @ unit
        by_z = (by_unit - unit * (unit * by_unit).sum(1, keepdim=True)) / norm
        return float(value), self._features.T @ by_z, by_z.sum(0)


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    norm = rows.norm(dim=1, keepdim=True).clamp(min=_TINY)
    return rows / norm, norm

"""The full-batch objective: every triplet over m objects in one pass through one m×m matrix.

A triplet's loss depends on three entries of the Gram matrix G = Z Zᵀ alone. So one pass over n triplets costs O(n) for
the entries and O(m² d) for the matrix, instead of O(n d) for gathered rows, and a quasi-Newton method can see them all.

With E = exp(G − max G) a triplet's probabilities are E / ΣE. So a pass needs one division and one logarithm a triplet:
the gradient in an entry is E · Σ_s w_s / ΣE_s, less people's mass on that entry, which is summed up once for all.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from likemind.pairs import PAIRS

DENSE = 8192
"""Objects up to which the m×m matrix is made (256 MB in float32); beyond, only the pairs that are asked about."""

_BLOCK = 2**22
"""Cells of gathered rows at a time."""

_GATHERED = 64
"""How many cells of the matrix are made in the time in which one triplet's rows are gathered."""

_LEAST = {torch.float32: 1e-30, torch.float64: 1e-290}
"""A ΣE below this has lost its digits: that triplet is done again with its own shift."""


class GramObjective:
    """Mean cross-entropy between people's choice distribution and the softmax over each triplet's three dot products.

    loss(Z) = − Σ_s w_s Σ_pair p_s(pair) log softmax(Z Zᵀ)_pair / Σ_s w_s
    (Muttenthaler et al. 2025, Methods: uncertainty distillation, up to the targets' constant entropy).

    Args:
        indices: (n, 3) positions in 0…objects−1.
        targets: (n, 3) distributions over the pairs 01, 02, 12.
        weights: (n,) number of answers behind each; equal if None.
        objects: Rows of Z, m.
        dtype: Of Z: float32 for speed, float64 for small problems. Sums are float64 either way.
        device: Of Z.
        dense: Whether the whole m×m matrix is made; by size if None.

    Example:
        >>> objective = GramObjective(np.array([[0, 1, 2]]), np.array([[1.0, 0.0, 0.0]]), None, 3)
        >>> loss, gradient = objective(torch.zeros(3, 2, dtype=torch.float64))
        >>> round(loss, 4), gradient.shape  # ln 3
        (1.0986, torch.Size([3, 2]))
    """

    def __init__(
        self,
        indices: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        objects: int,
        *,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        dense: bool | None = None,
    ) -> None:
        share = np.full(len(indices), 1 / len(indices)) if weights is None else weights / np.sum(weights, dtype=float)
        order = np.argsort(_names(indices, objects), kind="stable")  # neighbours in memory are read one after the other
        cells, ends, size = _cells(indices, order, objects, objects <= DENSE if dense is None else dense)
        share = share[order]
        mass = np.zeros(size)
        for pair in range(3):
            mass += np.bincount(cells[:, pair], targets[order, pair] * share, minlength=size)
        self._objects, self._dtype = objects, dtype
        self._ends = None if ends is None else (ends[0].to(device), ends[1].to(device))
        self._mass = torch.from_numpy(mass).to(device)
        self._cells = torch.from_numpy(cells).to(device)
        self._share = torch.from_numpy(share).to(device, dtype)

    def __call__(self, Z: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient.

        Shapes:
            Z: (m, d). Returns a float and (m, d).
        """
        if self._ends is None:
            gram = Z @ Z.T
            gram.fill_diagonal_(float(gram[0, 1]))  # never asked about, and it may be far larger than what is
            loss, by_entry = self.by_pair(gram.view(-1))
            by_gram = by_entry.view(self._objects, self._objects)
            return loss, (by_gram + by_gram.T) @ Z
        loss, by_pair = self.by_pair(_products(Z, *self._ends))
        return loss, _pulled(by_pair, Z, *self._ends)

    def by_pair(self, similarities: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient in each similarity.

        Shapes:
            similarities: (m · m,) where the matrix is made, else one for each pair that is asked about. Returns a float
                and as many.
        """
        top = similarities.max()
        shifted = (similarities - top).exp_()
        inverse = torch.zeros_like(shifted)
        least = _LEAST[self._dtype]
        if shifted.device.type == "cpu":
            log_sum, lost = _sum_up(self._cells.numpy(), shifted.numpy(), self._share.numpy(), least, inverse.numpy())
        else:
            log_sum, lost = sum_up_on_device(self._cells, shifted, self._share, least, inverse)
        loss = (
            log_sum
            + float(top) * float(self._share.sum(dtype=torch.float64))
            - float(self._mass @ similarities.double())
        )
        by_pair = shifted.mul_(inverse)
        if lost:
            loss += self._far_apart(similarities, top, least, by_pair)
        return loss, by_pair.sub_(self._mass)

    def _far_apart(self, similarities: Tensor, top: Tensor, least: float, by_pair: Tensor) -> float:
        """Add what triplets contribute whose similarities are all far below the largest one; return their loss."""
        below = (similarities - top).exp_()[self._cells.long()].sum(1)
        rows = torch.nonzero(~(below >= least)).squeeze(1)
        cells, share = self._cells[rows].long(), self._share[rows].double()
        values = similarities[cells].double()
        by_pair.index_add_(0, cells.view(-1), (share[:, None] * values.softmax(1)).to(by_pair.dtype).view(-1))
        return float(share @ (values.logsumexp(1) - float(top)))


def dot_pairs(Z: Tensor, indices: np.ndarray) -> Tensor:
    """Return the dot products of each triplet's pairs, through the Gram matrix where that is less work.

    Shapes:
        Z: (m, d). indices: (n, 3). Returns (n, 3), in the order 01, 02, 12.
    """
    triplets = torch.as_tensor(indices).long()
    if len(Z) <= DENSE and len(triplets) * _GATHERED > len(Z) ** 2:
        gram = Z @ Z.T
        return torch.stack([gram[triplets[:, a], triplets[:, b]] for a, b in PAIRS], dim=1)
    ends = [(triplets[:, a], triplets[:, b]) for a, b in PAIRS]
    return torch.stack([_products(Z, first, second) for first, second in ends], dim=1)


def _names(indices: np.ndarray, objects: int) -> np.ndarray:
    low, middle, high = np.sort(indices, axis=1).T
    names: np.ndarray = (low.astype(np.int64) * objects + middle) * objects + high
    return names


def _cells(
    indices: np.ndarray, order: np.ndarray, objects: int, dense: bool
) -> tuple[np.ndarray, tuple[Tensor, Tensor] | None, int]:
    """Return where each triplet's pairs stand among the similarities, (n, 3) int32; the pairs' ends; how many."""
    cells = np.empty((len(order), 3), dtype=np.int32 if dense else np.int64)
    for number, (a, b) in enumerate(PAIRS):
        first, second = indices[order, a].astype(np.int64), indices[order, b]
        cells[:, number] = np.minimum(first, second) * objects + np.maximum(first, second)
    if dense:
        return cells, None, objects * objects
    pairs, cells = np.unique(cells, return_inverse=True)
    first, second = torch.from_numpy(pairs // objects), torch.from_numpy(pairs % objects)
    return cells.reshape(-1, 3).astype(np.int32), (first, second), len(pairs)


def _products(Z: Tensor, first: Tensor, second: Tensor) -> Tensor:
    size = max(1, _BLOCK // Z.shape[1])
    blocks = [slice(start, start + size) for start in range(0, len(first), size)]
    return torch.cat([(Z[first[block]] * Z[second[block]]).sum(1) for block in blocks])


def _pulled(by_pair: Tensor, Z: Tensor, first: Tensor, second: Tensor) -> Tensor:
    gradient = torch.zeros_like(Z)
    size = max(1, _BLOCK // Z.shape[1])
    for start in range(0, len(first), size):
        a, b = first[start : start + size], second[start : start + size]
        pull = by_pair[start : start + size, None]
        gradient.index_add_(0, a, pull * Z[b])
        gradient.index_add_(0, b, pull * Z[a])
    return gradient


@numba.njit(cache=True)
def _sum_up(
    cells: np.ndarray, shifted: np.ndarray, share: np.ndarray, least: float, inverse: np.ndarray
) -> tuple[float, int]:
    """Add up w log ΣE, and w / ΣE for each entry, over the triplets whose ΣE has its digits; count the others."""
    total, lost = 0.0, 0
    for s in range(len(cells)):
        a, b, c = cells[s, 0], cells[s, 1], cells[s, 2]
        z = shifted[a] + shifted[b] + shifted[c]
        if z >= least:
            total += share[s] * np.log(z)
            w = share[s] / z
            inverse[a] += w
            inverse[b] += w
            inverse[c] += w
        else:
            lost += 1
    return total, lost


def sum_up_on_device(cells: Tensor, shifted: Tensor, share: Tensor, least: float, inverse: Tensor) -> tuple[float, int]:
    """Do the same where there is no numba: on a GPU."""
    z = shifted[cells.long()].sum(1)
    good = z >= least
    w = torch.where(good, share / z, torch.zeros_like(z))
    inverse.index_add_(0, cells.long().view(-1), w.repeat_interleave(3))
    return float((share.double() * z.double().log())[good].sum()), int((~good).sum())

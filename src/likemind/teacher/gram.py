"""The full-batch objective: every triplet over m objects in one pass through one m×m matrix.

A triplet's loss depends on three entries of the Gram matrix G = Z Zᵀ alone. So one pass over n triplets costs O(n) for
the entries and O(m² d) for the matrix, instead of O(n d) for gathered rows, and a quasi-Newton method can see them all.

With E = exp(G − max G) a triplet's probabilities are E / ΣE. So a pass needs one division and one logarithm a triplet:
the gradient in an entry is E · Σ_s w_s / ΣE_s, less people's mass on that entry, which is summed up once for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from torch import Tensor

from likemind.pairs import PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable

DENSE = 8192
"""Objects up to which the m×m matrix is made (256 MB in float32); beyond, only the pairs that are asked about."""

_BLOCK = 2**22
"""Cells of gathered rows at a time."""
_ROWS = 256
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
        order = np.argsort(_names(np.asarray(indices), objects))  # neighbours in memory are read one after the other
        cells, self._ends, size = similarity_cells(np.asarray(indices)[order], objects, dense)
        share = share[order]
        mass = np.zeros(size)
        _add_mass(cells, targets, order, share, mass)
        self._objects, self._dtype = objects, dtype
        self._mass = torch.from_numpy(mass).to(device)
        self._cells = torch.from_numpy(cells).to(device)
        self._share = torch.from_numpy(share).to(device, dtype)
        self._total = float(self._share.sum(dtype=torch.float64))

    def __call__(self, Z: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient.

        Shapes:
            Z: (m, d). Returns a float and (m, d).
        """
        if self._ends is None:
            loss, by_entry = self.by_pair(upper_gram(Z).view(-1))
            return loss, _pulled_upper(by_entry.view(self._objects, self._objects), Z)
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
            answered = _less_mass(shifted.numpy(), inverse.numpy(), self._mass.numpy(), similarities.numpy())
        else:
            log_sum, lost = sum_up_on_device(self._cells, shifted, self._share, least, inverse)
            answered = float(self._mass @ similarities.double())
            shifted.mul_(inverse).sub_(self._mass)
        loss = log_sum + float(top) * self._total - answered
        if lost:
            loss += self._far_apart(similarities, top, least, shifted)
        return loss, shifted

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


def choice_shares(draw: Callable[[], Tensor], samples: int, indices: np.ndarray, objects: int) -> np.ndarray:
    """Return the mean, over draws of Z, of the softmax over each triplet's three dot products, (n, 3) float32.

    Probabilities are averaged, not logits. The exponential is taken of the matrix, not of the triplets.

    Shapes:
        draw: Returns (m, d) float32 on the CPU. indices: (n, 3).
    """
    order = np.argsort(_names(indices, objects))
    cells, ends, _ = similarity_cells(indices[order], objects)
    total = np.zeros((len(cells), 3), dtype=np.float32)
    for _ in range(samples):
        Z = draw()
        similarities = upper_gram(Z).view(-1) if ends is None else _products(Z, *ends)
        shifted = (similarities - similarities.max()).exp_()
        _add_shares(cells, shifted.numpy(), similarities.numpy(), _LEAST[torch.float32], total)
    mean = np.empty_like(total)
    mean[order] = total / np.float32(samples)
    return mean


def upper_gram(Z: Tensor) -> Tensor:
    """Return Z Zᵀ, (m, m), in blocks of rows from the diagonal on; what lies left of them is another pair's value."""
    gram = Z.new_empty(len(Z), len(Z))
    for start in range(0, len(Z), _ROWS):
        rows = slice(start, start + _ROWS)
        torch.mm(Z[rows], Z[start:].T, out=gram[rows, start:])
        gram[rows, :start] = gram[0, 1]
    gram.fill_diagonal_(float(gram[0, 1]))  # never asked about, and it may be far larger than what is
    return gram


def _pulled_upper(by_entry: Tensor, Z: Tensor) -> Tensor:
    """Return (B + Bᵀ) Z of an upper triangular B."""
    gradient = torch.zeros_like(Z)
    for start in range(0, len(Z), _ROWS):
        rows = slice(start, start + _ROWS)
        block = by_entry[rows, start:]
        gradient[rows].addmm_(block, Z[start:])
        gradient[start:].addmm_(block.T, Z[rows])
    return gradient


def similarity_cells(
    indices: np.ndarray, objects: int, dense: bool | None = None
) -> tuple[np.ndarray, tuple[Tensor, Tensor] | None, int]:
    """Return where each triplet's pairs stand among the similarities, (n, 3) int32; the pairs' ends; how many.

    Where the matrix is made there are no ends: a pair stands in its upper triangle.
    """
    if objects <= DENSE if dense is None else dense:
        return _upper_cells(indices, objects), None, objects * objects
    ends = np.stack([np.sort(indices[:, pair], axis=1) for pair in PAIRS], axis=1).astype(np.int64)
    pairs, cells = np.unique(ends[..., 0] * objects + ends[..., 1], return_inverse=True)
    first, second = torch.from_numpy(pairs // objects), torch.from_numpy(pairs % objects)
    return cells.reshape(-1, 3).astype(np.int32), (first, second), len(pairs)


@numba.njit(cache=True)
def _names(indices: np.ndarray, objects: int) -> np.ndarray:
    names = np.empty(len(indices), dtype=np.int64)
    for s in range(len(indices)):
        a, b, c = np.int64(indices[s, 0]), np.int64(indices[s, 1]), np.int64(indices[s, 2])
        low, high = min(a, b, c), max(a, b, c)
        names[s] = (low * objects + a + b + c - low - high) * objects + high
    return names


@numba.njit(cache=True)
def _upper_cells(indices: np.ndarray, objects: int) -> np.ndarray:
    cells = np.empty((len(indices), 3), dtype=np.int32)
    for s in range(len(indices)):
        a, b, c = np.int64(indices[s, 0]), np.int64(indices[s, 1]), np.int64(indices[s, 2])
        cells[s, 0] = min(a, b) * objects + max(a, b)
        cells[s, 1] = min(a, c) * objects + max(a, c)
        cells[s, 2] = min(b, c) * objects + max(b, c)
    return cells


@numba.njit(cache=True)
def _add_mass(cells: np.ndarray, targets: np.ndarray, order: np.ndarray, share: np.ndarray, mass: np.ndarray) -> None:
    for s in range(len(cells)):
        for k in range(3):
            mass[cells[s, k]] += targets[order[s], k] * share[s]


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
def _add_shares(
    cells: np.ndarray, shifted: np.ndarray, similarities: np.ndarray, least: float, total: np.ndarray
) -> None:
    """Add E / ΣE; where ΣE has lost its digits, E is made again with the triplet's own shift."""
    for s in range(len(cells)):
        a, b, c = cells[s, 0], cells[s, 1], cells[s, 2]
        x, y, z = shifted[a], shifted[b], shifted[c]
        if x + y + z < least:
            top = max(similarities[a], similarities[b], similarities[c])
            x, y, z = np.exp(similarities[a] - top), np.exp(similarities[b] - top), np.exp(similarities[c] - top)
        inverse = np.float32(1) / (x + y + z)
        total[s, 0] += x * inverse
        total[s, 1] += y * inverse
        total[s, 2] += z * inverse


@numba.njit(cache=True)
def _less_mass(by_pair: np.ndarray, inverse: np.ndarray, mass: np.ndarray, similarities: np.ndarray) -> float:
    """Make E · inverse − mass of E, in place; return mass · similarities."""
    total = 0.0
    for k in range(len(mass)):
        total += mass[k] * similarities[k]
        by_pair[k] = by_pair[k] * inverse[k] - mass[k]
    return total


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

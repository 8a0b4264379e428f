"""The affine map that people's choices ask for, solved for one penalty after another."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.choice import fit_temperature
from likemind.errors import LikemindError
from likemind.teacher.gram import GramObjective, dot_pairs
from likemind.teacher.local import LocalTerm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_SMALL = 1000
"""Objects up to which a second thread gains nothing on an idle machine, and on a busy one costs ten times the time."""

_LOOKED_AT = 2**19
"""Triplets that the first temperature is fitted to, evenly spread over all: one number needs no more."""

_WIDE = 2**18
"""Cells of the features up to which float64 costs next to nothing."""


@dataclass(frozen=True, eq=False)
class Standard:
    """Features x ↦ (x − mean) / scale, at which the identity is the best scaled identity.

    Attributes:
        mean: (d,) of the objects.
        scale: (d,), one number for each block of features that were joined, repeated.
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return standard features, of X's shape and float64."""
        standard: np.ndarray = (np.asarray(X, dtype=np.float64) - self.mean) / self.scale
        return standard


def standardise(
    X: np.ndarray, triplets: np.ndarray, targets: np.ndarray, answers: np.ndarray, blocks: Sequence[int]
) -> Standard:
    """Centre the features, give every block the same spread, and fit one temperature to people's choices.

    Raises:
        LikemindError: There is no triplet, or features are constant or not finite.
    """
    if len(triplets) == 0:
        raise LikemindError("there is no triplet to fit the teacher to: give judgements over the features' items")
    if not np.isfinite(X).all():
        row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
        raise LikemindError(f"row {row} of the features is not finite: embed the images again")
    mean = X.mean(axis=0, dtype=np.float64)
    ends = np.cumsum([0, *blocks])
    spread = np.empty(X.shape[1])
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        part = X[:, start:end] - mean[start:end]
        spread[start:end] = part.std()
        if spread[start] < 1e-9 * max(1.0, float(np.abs(X[:, start:end]).mean())):
            which = f" of store {number + 1}" if len(blocks) > 1 else ""
            raise LikemindError(f"the features{which} are constant over the items: use another backbone or layer")
    some = slice(None, None, -(-len(triplets) // _LOOKED_AT))
    by_answer = torch.as_tensor(targets[some] * (answers[some] / answers[some].mean())[:, None])
    similarities = dot_pairs(torch.from_numpy((X - mean) / spread), triplets[some])
    return Standard(mean, spread * fit_temperature(similarities, by_answer) ** 0.5)


@dataclass(frozen=True, eq=False)
class Solution:
    """A map within the span of the objects' features: z = x core + shift; outside of it, z = x · outside.

    Attributes:
        core: (r, r). shift: (r,). outside: The scale of what no object has shown.
        loss: Cross-entropy of the answers fitted to, nats.
    """

    core: Tensor
    shift: Tensor
    outside: float
    loss: float

    def mixed(self, mix: float) -> Solution:
        """Return the map whose similarities are ``mix`` parts this map's and the rest the features' own.

        With M = (1 − mix) I + mix · W Wᵀ that map is M½, and its shift mix · M⁻½ W b; a constant that all pairs share
        is left out, since no choice depends on it.
        """
        if mix == 1.0:
            return self
        eye = torch.eye(len(self.core), dtype=torch.float64)
        W, b = self.core.double().cpu(), self.shift.double().cpu()
        values, vectors = torch.linalg.eigh((1 - mix) * eye + mix * (W @ W.T))
        root = vectors * values.clamp(min=1e-12).sqrt()
        pulled = vectors / values.clamp(min=1e-12).sqrt() @ (vectors.T @ (mix * (W @ b)))
        outside = ((1 - mix) + mix * self.outside**2) ** 0.5
        return Solution((root @ vectors.T).to(self.core), pulled.to(self.shift), outside, self.loss)


class AffineProblem:
    """One set of objects, features and answers; ``solve`` finds the map for a penalty.

    min over (W, b) of  (1 − α) CE(people, softmax(z zᵀ)) + α local + penalty · (‖W − (tr W / r) I‖² + ‖b‖²)

    Everything happens in the span of the features, which loses nothing: outside of it only the penalty acts, and it
    asks for the scaled identity. So a fit costs O(m³) for m objects however wide the features are.

    Args:
        X: (m, d) features, a row an object.
        triplets: (n, 3) rows of X.
        targets: (n, 3) people's distribution over the pairs 01, 02, 12.
        answers: (n,) number of answers behind each.
        blocks: Widths of the features that were joined; one if None.
        others: (k, d) features of other images, whose neighbourhoods are to stay as they are.
        local_weight: α, the share of that wish.
    """

    def __init__(
        self,
        X: np.ndarray,
        triplets: np.ndarray,
        targets: np.ndarray,
        answers: np.ndarray | None = None,
        *,
        blocks: Sequence[int] | None = None,
        others: np.ndarray | None = None,
        local_weight: float = 0.0,
    ) -> None:
        weights = np.ones(len(triplets)) if answers is None else np.asarray(answers, dtype=np.float64)
        self.standard = standardise(X, triplets, targets, weights, blocks or [X.shape[1]])
        rows = torch.from_numpy(self.standard(X))
        local = self.standard(others) if others is not None and local_weight else np.empty((0, X.shape[1]))
        self._span = _span(torch.cat([rows, torch.from_numpy(local)]))
        dtype = torch.float64 if rows.numel() <= _WIDE else torch.float32
        device = "cuda" if torch.cuda.is_available() and dtype == torch.float32 else "cpu"
        self._features = self._inside(rows).to(device, dtype)
        self._objective = GramObjective(triplets, targets, weights, len(X), dtype=dtype, device=device)
        self._local = LocalTerm(self._inside(torch.from_numpy(local)).to(device, dtype)) if len(local) else None
        self._share = local_weight if len(local) else 0.0

    def _inside(self, rows: Tensor) -> Tensor:
        return rows if self._span is None else rows @ self._span

    def identity(self) -> Solution:
        """Return the map that leaves the features as they are."""
        rank = self._features.shape[1]
        eye = torch.eye(rank).to(self._features)
        with _one_thread_if_small(len(self._features)):
            return Solution(eye, torch.zeros(rank).to(eye), 1.0, self._objective(self._features)[0])

    def solve(self, penalty: float, start: Solution | None = None, max_iter: int = 200) -> Solution:
        """Return the map for a penalty, by L-BFGS from ``start`` (the identity if None)."""
        begin = self.identity() if start is None else start
        with _one_thread_if_small(len(self._features)):
            core, shift, loss = self._minimise(penalty, begin, max_iter)
        return Solution(core, shift, float(core.diagonal().mean()), loss)

    def _minimise(self, penalty: float, start: Solution, max_iter: int) -> tuple[Tensor, Tensor, float]:
        X, rank = self._features, len(start.shift)
        flat = torch.cat([start.core.reshape(-1), start.shift]).clone().requires_grad_()
        loss = start.loss

        def closure() -> float:
            nonlocal loss
            with torch.no_grad():
                W, b = flat[:-rank].view(rank, rank), flat[-rank:]
                loss, by_z = self._objective(X @ W + b)
                off = W - W.diagonal().mean() * torch.eye(rank).to(W)
                by_W, by_b = X.T @ by_z, by_z.sum(0)
                total = loss
                if self._local is not None:
                    near, near_W, near_b = self._local(W, b)
                    total = (1 - self._share) * loss + self._share * near
                    by_W, by_b = by_W.lerp(near_W, self._share), by_b.lerp(near_b, self._share)
                flat.grad = torch.cat([(by_W + 2 * penalty * off).reshape(-1), by_b + 2 * penalty * b])
                return total + penalty * float(off.square().sum() + b.square().sum())

        optimiser = torch.optim.LBFGS(
            [flat],
            max_iter=max_iter,
            history_size=20,
            tolerance_grad=1e-6,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        closure()
        found = flat.detach()
        return found[:-rank].view(rank, rank), found[-rank:], loss

    def full(self, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
        """Return the map in the features' own width: weights (d, d) and bias (d,), float32."""
        core, shift = solution.core.double().cpu(), solution.shift.double().cpu()
        if self._span is None:
            return core.float().numpy(), shift.float().numpy()
        inside = self._span @ (core - solution.outside * torch.eye(len(shift), dtype=torch.float64)) @ self._span.T
        inside.diagonal().add_(solution.outside)
        return inside.float().numpy(), (self._span @ shift).float().numpy()

    def departure(self, solution: Solution) -> float:
        """Return how far a map is from the scaled identity: ‖W − cI‖ / ‖W‖, between 0 and 1."""
        off = solution.core - solution.core.diagonal().mean() * torch.eye(len(solution.core)).to(solution.core)
        return float(off.norm() / solution.core.norm())


def _span(rows: Tensor) -> Tensor | None:
    """Return an orthonormal basis (d, r) of what the rows span, where that is less than their width; else None."""
    if len(rows) >= rows.shape[1]:
        return None
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = values > values[-1] * 1e-12
    basis: Tensor = torch.linalg.qr(rows.T @ vectors[:, kept] / values[kept].sqrt())[0]
    return basis


@contextlib.contextmanager
def _one_thread_if_small(objects: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if objects <= _SMALL else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""The surrogate teacher: one affine map on frozen features, fitted to people's choices."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from scipy.optimize import minimize

from likemind.artifacts import PathLike, read_json, read_run, write_atomic, write_json
from likemind.choice import agreement, fit_temperature, pair_similarities
from likemind.errors import LikemindError
from likemind.teacher.gram import GramObjective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

IDENTITY = float("inf")
"""The penalty at which the map stays the (scaled) identity."""

_SMALL = 1000
"""Objects up to which a second thread gains nothing on an idle machine, and on a busy one costs ten times the time."""


@contextlib.contextmanager
def _one_thread_if_small(objects: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if objects <= _SMALL else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Teacher:
    """Features x ↦ z = ((x − mean_) / scale_) weights_ + bias_, whose dot products are people's similarities.

    min over (W, b) of  CE(people, softmax(z zᵀ)) + penalty · (‖W − (tr W / d) I‖² + ‖b‖²)
    (Muttenthaler et al. 2025, Methods; the identity penalty is gLocal's, Muttenthaler et al. 2023, eq. 5; without ours
    on the bias it learns how often each object was picked, and unseen objects suffer).
    ``scale_`` is such that the identity is the best *scaled* identity: the temperature is fitted before W, so that the
    penalty means the same for every backbone.

    The map is fitted in the span of the objects' features, which loses nothing: outside of it only the penalty acts,
    and it asks for the scaled identity. So a fit costs O(m³) for m objects however wide the features are.

    Args:
        penalty: Pull towards the scaled identity, ≥ 0; ``inf`` for the identity itself.
        max_iter: Iterations of L-BFGS.

    Attributes:
        weights_: (d, d) float32. bias_: (d,). mean_: (d,). scale_: float.
        identity_scale_: The scale that suits the untransformed features, whatever ``calibrate`` does to ``scale_``.
        loss_: Mean cross-entropy of the answers fitted to, nats.
        backbone_: Fingerprint of the backbone whose features it was fitted on, or "".
        cv_results_: What ``teach`` saw in cross-validation: one dict a penalty.
        facts_: What it was fitted to, and how well.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, triplets = rng.normal(size=(9, 4)), np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 4, 8]])
        >>> teacher = Teacher(penalty=0.1).fit(X, triplets, np.tile([0.8, 0.1, 0.1], (4, 1)))
        >>> teacher.transform(X).shape
        (9, 4)
    """

    weights_: np.ndarray
    bias_: np.ndarray
    mean_: np.ndarray
    scale_: float
    identity_scale_: float
    loss_: float | None = None

    def __init__(self, penalty: float = 0.01, *, max_iter: int = 200) -> None:
        self.penalty = penalty
        self.max_iter = max_iter
        self.backbone_ = ""
        self.cv_results_: list[dict[str, Any]] = []
        self.facts_: dict[str, Any] = {}

    def fit(
        self,
        X: np.ndarray,
        triplets: np.ndarray,
        targets: np.ndarray,
        answers: np.ndarray | None = None,
        *,
        start: Teacher | None = None,
    ) -> Self:
        """Fit the map.

        Args:
            X: (m, d) features, a row an object.
            triplets: (n, 3) rows of X.
            targets: (n, 3) people's distribution over the pairs 01, 02, 12.
            answers: (n,) number of answers behind each triplet; equal if None.
            start: A teacher fitted to the same X and triplets to start from.

        Raises:
            LikemindError: Features are constant or not finite, or there is no triplet.
        """
        features = np.asarray(X, dtype=np.float64)
        weights = np.ones(len(triplets)) if answers is None else np.asarray(answers, dtype=np.float64)
        self._standardise(features, triplets, targets, weights)
        with _one_thread_if_small(len(features)):
            self._fit(features, triplets, targets, weights, start)
        return self

    def _fit(
        self, X: np.ndarray, triplets: np.ndarray, targets: np.ndarray, weights: np.ndarray, start: Teacher | None
    ) -> None:
        d = X.shape[1]
        centred = torch.from_numpy((X - self.mean_) / self.scale_)
        left, size, right = torch.linalg.svd(centred, full_matrices=False)
        rank = int((size > size[0] * 1e-7).sum())
        reduced, span = left[:, :rank] * size[:rank], right[:rank].T
        objective = GramObjective(triplets, targets, weights, len(X))
        core = np.eye(rank), np.zeros(rank)
        if start is not None:
            moved, shift = torch.from_numpy(start.weights_).double(), torch.from_numpy(start.bias_).double()
            core = (span.T @ moved @ span).numpy(), (span.T @ shift).numpy()
        if np.isinf(self.penalty):
            self.loss_ = objective(reduced @ reduced.T)[0]
        else:
            core = self._solve(objective, reduced, *core)
        B, b = torch.from_numpy(core[0]), torch.from_numpy(core[1])
        outside = B.diagonal().mean()
        inside = span @ (B - outside * torch.eye(rank, dtype=torch.float64)) @ span.T
        full = inside + outside * torch.eye(d, dtype=torch.float64)
        self.weights_, self.bias_ = full.float().numpy(), (span @ b).float().numpy()

    def _standardise(self, X: np.ndarray, triplets: np.ndarray, targets: np.ndarray, answers: np.ndarray) -> None:
        if len(triplets) == 0:
            raise LikemindError("there is no triplet to fit the teacher to: give judgements over the features' items")
        if not np.isfinite(X).all():
            row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
            raise LikemindError(f"row {row} of the features is not finite: embed the images again")
        self.mean_ = X.mean(axis=0)
        spread = float(X.std())
        if (X - self.mean_).std() < 1e-9 * max(1.0, abs(float(X.mean()))):
            raise LikemindError("the features are constant over the items: use another backbone or layer")
        embedding = torch.from_numpy((X - self.mean_) / spread)
        by_answer = torch.as_tensor(targets * (answers / answers.mean())[:, None])
        temperature = fit_temperature(pair_similarities(embedding, torch.as_tensor(triplets)), by_answer)
        self.scale_ = self.identity_scale_ = spread * temperature**0.5

    def _solve(
        self, objective: GramObjective, X: Tensor, B: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rank = len(b)
        identity = torch.eye(rank, dtype=torch.float64)

        def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            W, shift = torch.from_numpy(flat[:-rank]).view(rank, rank), torch.from_numpy(flat[-rank:])
            Z = X @ W + shift
            loss, by_entry = objective(Z @ Z.T)
            by_z = (by_entry + by_entry.T) @ Z
            off = W - W.diagonal().mean() * identity
            total = loss + self.penalty * float((off * off).sum() + (shift * shift).sum())
            by_W, by_shift = X.T @ by_z + 2 * self.penalty * off, by_z.sum(0) + 2 * self.penalty * shift
            self.loss_ = loss
            return total, torch.cat([by_W.reshape(-1), by_shift]).numpy()

        start = np.concatenate([B.reshape(-1), b])
        options = {"maxiter": self.max_iter, "maxcor": 20, "ftol": 1e-5, "gtol": 1e-6}
        found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        loss_and_gradient(found.x)
        return found.x[:-rank].reshape(rank, rank), found.x[-rank:]

    @property
    def is_identity(self) -> bool:
        """Whether the features are left as they are, but for centre and scale."""
        return bool(np.isinf(self.penalty))

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the human-aligned features, float32.

        Shapes:
            X: (n, d). Returns (n, d).
        """
        if X.ndim != 2 or X.shape[1] != len(self.mean_):
            raise LikemindError(
                f"the teacher takes features of width {len(self.mean_)}, got {X.shape}: use its own backbone's"
            )
        standard = ((X - self.mean_) / self.scale_).astype(np.float32)
        aligned: np.ndarray = standard @ self.weights_ + self.bias_
        return aligned

    def score(self, X: np.ndarray, triplets: np.ndarray, targets: np.ndarray) -> float:
        """Return the agreement: people's mean probability of the teacher's choice. Ties count as zero."""
        return float(agreement(self.similarities(X, triplets), torch.from_numpy(targets)).mean())

    def similarities(self, X: np.ndarray, triplets: np.ndarray) -> Tensor:
        """Return the dot products of each triplet's pairs, (n, 3) float64."""
        return pair_similarities(
            torch.from_numpy(self.transform(X)).double(), torch.as_tensor(triplets, dtype=torch.int64)
        )

    def calibrate(self, temperature: float) -> None:
        """Divide the similarities by a temperature that was fitted on unseen objects."""
        self.scale_ *= temperature**0.5
        self.bias_ = (self.bias_ / temperature**0.5).astype(np.float32)

    def untransformed(self) -> Teacher:
        """Return the control: the same centre, the features' own scale, and no map (UnAligNet)."""
        control = Teacher(IDENTITY)
        control.mean_, control.backbone_ = self.mean_, self.backbone_
        control.scale_ = control.identity_scale_ = self.identity_scale_
        control.weights_ = np.eye(len(self.mean_), dtype=np.float32)
        control.bias_ = np.zeros_like(self.bias_)
        return control

    def check_backbone(self, fingerprint: str, what: str) -> None:
        """Refuse features of another backbone than the teacher's."""
        if self.backbone_ and fingerprint != self.backbone_:
            raise LikemindError(
                f"{what} comes from another backbone, layer or preprocessing than the teacher was fitted on: "
                "embed the images with the teacher's own"
            )

    def write(self, folder: Path) -> None:
        """Write ``teacher.safetensors`` and ``teacher.json``."""
        from safetensors.numpy import save

        arrays = {"weights": self.weights_, "bias": self.bias_, "mean": self.mean_}
        write_atomic(
            folder / "teacher.safetensors", save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
        )
        penalty = None if self.is_identity else self.penalty
        scales = {"scale": self.scale_, "identity_scale": self.identity_scale_}
        about = {"schema": 1, "penalty": penalty, **scales, "loss": self.loss_, "backbone": self.backbone_}
        write_json(folder / "teacher.json", {**about, "cv_results": self.cv_results_, "facts": self.facts_})

    @classmethod
    def load(cls, path: PathLike | Teacher, *, verify: bool = False) -> Teacher:
        """Read a teacher that ``likemind teach`` wrote."""
        from safetensors.numpy import load

        if isinstance(path, Teacher):
            return path
        folder = Path(path)
        read_run(folder, verb="teach", verify=verify)
        about = read_json(folder / "teacher.json")
        teacher = cls(IDENTITY if about["penalty"] is None else about["penalty"])
        arrays = load((folder / "teacher.safetensors").read_bytes())
        teacher.weights_, teacher.bias_, teacher.mean_ = arrays["weights"], arrays["bias"], arrays["mean"]
        teacher.scale_, teacher.loss_, teacher.backbone_ = about["scale"], about["loss"], about["backbone"]
        teacher.identity_scale_ = about["identity_scale"]
        teacher.cv_results_, teacher.facts_ = about["cv_results"], about["facts"]
        return teacher

    @property
    def key(self) -> str:
        """Hash of the map."""
        digest = hashlib.sha256(json.dumps([self.scale_, self.identity_scale_, self.backbone_]).encode())
        for array in (self.weights_, self.bias_, self.mean_):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

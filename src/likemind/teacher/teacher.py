"""The surrogate teacher: one affine map on frozen features, fitted to people's choices."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from likemind.artifacts import PathLike, read_json, read_run, write_atomic, write_json
from likemind.choice import agreement
from likemind.errors import LikemindError
from likemind.fetched import fetched
from likemind.teacher import glocal
from likemind.teacher.affine import AffineProblem
from likemind.teacher.gram import dot_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from likemind.teacher.affine import Solution

IDENTITY = float("inf")
"""The penalty at which the map stays the (scaled) identity."""

_ARRAYS = ("weights", "bias", "mean", "scale", "identity_scale")


class Teacher(BaseEstimator):  # type: ignore[misc]
    """Features x ↦ z = ((x − mean_) / scale_) weights_ + bias_, whose dot products are people's similarities.

    min over (W, b) of  CE(people, softmax(z zᵀ)) + penalty · (‖W − (tr W / d) I‖² + ‖b‖²)
    (Muttenthaler et al. 2025, Methods; the identity penalty is gLocal's, Muttenthaler et al. 2023, eq. 5; without ours
    on the bias it learns how often each object was picked, and unseen objects suffer).
    ``scale_`` is such that the identity is the best *scaled* identity: the temperature is fitted before W, so that the
    penalty means the same for every backbone.

    Args:
        penalty: Pull towards the scaled identity, ≥ 0; ``inf`` for the identity itself.
        mix: Share of the map in the similarities, in (0, 1]; the rest are the untransformed features' own. The mixture
            is one affine map again (``likemind.teacher.affine.Solution.mixed``).
        local_weight: Share of gLocal's wish that other images keep their neighbours, in [0, 1); see ``others``.
        max_iter: Iterations of L-BFGS.

    Attributes:
        weights_: (d, d) float32. bias_: (d,). mean_: (d,). scale_: (d,), one number a block of joined features.
        identity_scale_: The scale that suits the untransformed features, whatever ``calibrate`` does to ``scale_``.
        loss_: Mean cross-entropy of the answers fitted to, nats, before mixing.
        backbone_: Fingerprint of the backbone whose features it was fitted on, or "".
        cv_results_: What ``teach`` saw in cross-validation: one dict a candidate.
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
    scale_: np.ndarray
    identity_scale_: np.ndarray
    loss_: float | None
    backbone_: str = ""
    cv_results_: list[dict[str, Any]]
    facts_: dict[str, Any]

    def __init__(
        self, penalty: float = 0.01, *, mix: float = 1.0, local_weight: float = 0.0, max_iter: int = 200
    ) -> None:
        self.penalty = penalty
        self.mix = mix
        self.local_weight = local_weight
        self.max_iter = max_iter

    def fit(
        self,
        X: np.ndarray,
        triplets: np.ndarray,
        targets: np.ndarray,
        answers: np.ndarray | None = None,
        *,
        blocks: Sequence[int] | None = None,
        others: np.ndarray | None = None,
    ) -> Self:
        """Fit the map.

        Args:
            X: (m, d) features, a row an object.
            triplets: (n, 3) rows of X.
            targets: (n, 3) people's distribution over the pairs 01, 02, 12.
            answers: (n,) number of answers behind each triplet; equal if None.
            blocks: Widths of the features that were joined in X, which sum to d; one if None.
            others: (k, d) features of other images, for the local term.

        Raises:
            LikemindError: Features are constant or not finite, there is no triplet, or a parameter is out of range.
        """
        if not self.penalty >= 0 or not 0 < self.mix <= 1 or not 0 <= self.local_weight < 1:
            raise LikemindError(
                f"penalty must be at least 0, mix in (0, 1] and local_weight in [0, 1), got {self.penalty}, "
                f"{self.mix} and {self.local_weight}: mend them"
            )
        if self.local_weight and (others is None or len(others) < 3):
            raise LikemindError("local_weight needs the features of three other images at least: give others")
        problem = AffineProblem(
            np.asarray(X), triplets, targets, answers, blocks=blocks, others=others, local_weight=self.local_weight
        )
        found = problem.identity() if self.is_identity else problem.solve(self.penalty, max_iter=self.max_iter)
        return self.take(problem, found)

    def take(self, problem: AffineProblem, solution: Solution) -> Self:
        """Become the map that was found for a problem, mixed as this teacher's ``mix`` says."""
        self.mean_, self.scale_ = problem.standard.mean, problem.standard.scale
        self.identity_scale_, self.loss_ = self.scale_.copy(), solution.loss
        self.weights_, self.bias_ = problem.full(solution if self.is_identity else solution.mixed(self.mix))
        self.cv_results_, self.facts_ = [], {}
        return self

    @classmethod
    def of(
        cls,
        weights: np.ndarray,
        bias: np.ndarray,
        mean: np.ndarray | float,
        scale: np.ndarray | float,
        *,
        penalty: float = 0.0,
        backbone: str = "",
    ) -> Teacher:
        """Return a teacher whose map is known: z = ((x − mean) / scale) weights + bias.

        Shapes:
            weights: (d, d). bias: (d,). mean, scale: (d,), or one number for all.
        """
        teacher = cls(penalty)
        teacher.weights_, teacher.bias_ = weights.astype(np.float32), bias.astype(np.float32)
        teacher.mean_ = np.full(len(bias), mean, dtype=np.float64)
        teacher.scale_ = np.full(len(bias), scale, dtype=np.float64)
        teacher.identity_scale_, teacher.loss_, teacher.backbone_ = teacher.scale_.copy(), None, backbone
        teacher.cv_results_, teacher.facts_ = [], {}
        return teacher

    @property
    def is_identity(self) -> bool:
        """Whether the features are left as they are, but for centre and scale."""
        return bool(np.isinf(self.penalty))

    @property
    def chosen_(self) -> dict[str, Any]:
        """The row of ``cv_results_`` that was chosen."""
        return next(row for row in self.cv_results_ if row["chosen"])

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the human-aligned features, float32.

        Shapes:
            X: (n, d). Returns (n, d).
        """
        check_is_fitted(self)
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
        return dot_pairs(torch.from_numpy(self.transform(X)).double(), triplets)

    def calibrate(self, temperature: float) -> None:
        """Divide the similarities by a temperature that was fitted on unseen objects."""
        self.scale_ = self.scale_ * temperature**0.5
        self.bias_ = (self.bias_ / temperature**0.5).astype(np.float32)

    def untransformed(self) -> Teacher:
        """Return the control: the same centre, the features' own scale, and no map (UnAligNet)."""
        eye, zero = np.eye(len(self.mean_), dtype=np.float32), np.zeros_like(self.bias_)
        return Teacher.of(eye, zero, self.mean_, self.identity_scale_, penalty=IDENTITY, backbone=self.backbone_)

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

        arrays = {name: np.ascontiguousarray(getattr(self, f"{name}_")) for name in _ARRAYS}
        write_atomic(folder / "teacher.safetensors", save(arrays))
        made = {"penalty": None if self.is_identity else self.penalty, "mix": self.mix}
        about = {"schema": 2, **made, "local_weight": self.local_weight, "loss": self.loss_, "backbone": self.backbone_}
        write_json(folder / "teacher.json", {**about, "cv_results": self.cv_results_, "facts": self.facts_})

    def to_glocal(self, path: PathLike) -> None:
        """Write the map as gLocal's ``transform.npz``, which thingsvision reads.

        Shapes:
            ``weights`` (d, d) float32, ``bias`` (d,), ``mean`` and ``std`` numbers: z = ((x − mean) / std) weights +
            bias. What this teacher centres and scales in each column goes into weights and bias.
        """
        check_is_fitted(self)
        glocal.write(Path(path), self.weights_, self.bias_, self.mean_, self.scale_)

    @classmethod
    def from_glocal(cls, path: PathLike) -> Teacher:
        """Read gLocal's ``transform.npz`` as a teacher; of which backbone, the file does not say.

        Raises:
            LikemindError: It is not such a file.
        """
        found = glocal.read(Path(path))
        teacher = cls.of(found.weights, found.bias, found.mean, found.std)
        teacher.facts_ = {"backbone_name": "", "source": "human", "from": "gLocal"}
        return teacher

    @classmethod
    def load(cls, path: PathLike | Teacher, *, verify: bool = False) -> Teacher:
        """Read a teacher that ``likemind teach`` wrote, or gLocal's ``transform.npz``, at a path or URL."""
        from safetensors.numpy import load

        if isinstance(path, Teacher):
            return path
        folder = fetched(path)
        if folder.suffix == ".npz":
            return cls.from_glocal(folder)
        read_run(folder, verb="teach", verify=verify)
        about = read_json(folder / "teacher.json")
        if about.get("schema") != 2:
            raise LikemindError(f"{folder} was made by an older likemind: teach it again with --overwrite")
        penalty = IDENTITY if about["penalty"] is None else about["penalty"]
        teacher = cls(penalty, mix=about["mix"], local_weight=about["local_weight"])
        for name, array in load((folder / "teacher.safetensors").read_bytes()).items():
            setattr(teacher, f"{name}_", array)
        teacher.loss_, teacher.backbone_ = about["loss"], about["backbone"]
        teacher.cv_results_, teacher.facts_ = about["cv_results"], about["facts"]
        return teacher

    @property
    def key(self) -> str:
        """Hash of the map."""
        digest = hashlib.sha256(json.dumps(self.backbone_).encode())
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, f"{name}_")).tobytes())
        return digest.hexdigest()

"""What people would answer: from raw odd-one-out answers to a distribution over the three choices.

A variational, non-negative embedding (VICE: Muttenthaler et al., NeurIPS 2022). Each item has d latent numbers x with a
normal posterior q(x) = N(loc, scale²); its embedding is z = ReLU(x), and p(pair) is the softmax of the three dot
products of z. Most numbers are near zero beforehand: p(x) = π N(0, spike²) + (1 − π) N(0, slab²). Fitted is

    − mean over answers of log p(answer | z)  +  (1/n) Σ (log q(x) − log p(x)),    x = loc + scale · ε,

whose expectation is 1/n times the negative evidence lower bound of n answers. How it is solved is ours: every step sees
hundreds of thousands of answers through one Gram matrix (``likemind.teacher.gram``) and one draw of ε.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from likemind.artifacts import PathLike, read_json, write_atomic, write_json
from likemind.errors import LikemindError
from likemind.pairs import ODD_OF_PAIR
from likemind.readers.embeddings import HumanEmbedding
from likemind.teacher.bound import Prior, negative_bound, significant
from likemind.teacher.checks import checked, checked_triplets
from likemind.teacher.gram import GramObjective, choice_shares
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 500_000
"""Answers a step, at least: below, the matrix products cost more than the answers."""
_RATE, _BETAS = 0.15, (0.9, 0.99)
_AVERAGED = 20
_WINDOW = 40
_HALVINGS = 6
_START, _START_SCALE = 0.3, 0.08
_SIGNIFICANT = 5
_DIMENSIONS = 10, 100
"""At least, and at most."""


class ChoicePosterior:
    """A distribution over what people would answer, fitted to what they did.

    Args:
        dimensions: d at the start; if None, as many as there are answers an item, between 10 and 100.
        prior: Of each latent number.
        tolerance: Nats by which 40 steps must lower the objective to be worth more at the same rate. A smaller one
            takes longer and leaves fewer dimensions.
        max_steps: An end for fits that do not come to rest.
        seed: Of the start, the batches and the noise.
        device: ``cpu`` or ``cuda``.

    Attributes:
        loc_, scale_: (m, d) float32, the posterior of each item's latent numbers. An item without answers has
            the normal distribution that is nearest to the prior.
        kept_: (d,) bool, the dimensions on which more than five items are significantly above zero (Benjamini and
            Hochberg's rule at 5 % false discoveries).
        embedding_: (m, kept) float32, ReLU of ``loc_`` on these, the largest first. Not negative.
        history_: For every 40 steps: ``steps``, ``objective`` (their mean), ``rate``.
        answers_: n.
        items_, source_: Ids and source of the answers; set by ``posterior``.

    Example:
        >>> asked = np.array([[0, 1, 2], [0, 1, 3], [2, 3, 0], [2, 3, 1]] * 20)  # 0 and 1 belong together
        >>> people = ChoicePosterior(dimensions=4).fit(asked, np.tile([1.0, 0, 0], (80, 1)))
        >>> bool(people.predict(np.array([[1, 0, 2]]))[0, 0] > 0.7)
        True
    """

    def __init__(
        self,
        dimensions: int | None = None,
        *,
        prior: Prior | None = None,
        tolerance: float = 1e-3,
        max_steps: int = 4000,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if (dimensions is not None and dimensions < 1) or max_steps < 1:
            raise LikemindError(
                f"dimensions and max_steps must be at least 1, got {dimensions} and {max_steps}: mend it"
            )
        self.dimensions = dimensions
        self.prior = prior or Prior()
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.seed = seed
        self.device = device
        self.items_: list[str] = []
        self.source_ = "human"
        self.history_: list[dict[str, float]] = []

    def fit(
        self,
        indices: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None = None,
        objects: int | None = None,
    ) -> Self:
        """Fit the posterior, on one thread, so that the result does not depend on their number.

        Adam's rate is halved when the objective's mean over 40 steps is not lower than before by a standard error and
        by ``tolerance``, and the fit ends after six halvings. Kept is the running mean of some 20 steps.

        Args:
            indices: (n, 3) positions of items.
            targets: (n, 3) shares of answers for the pairs 01, 02, 12; one-hot for single answers.
            weights: (n,) number of answers behind each row; 1 if None.
            objects: Number of items; the largest position + 1 if None.

        Raises:
            LikemindError: A row repeats an item, points outside the items, or is not a distribution.
        """
        rows, shares, counts = checked(indices, targets, weights, objects)
        m = int(rows.max()) + 1 if objects is None else objects
        asked = np.flatnonzero(np.bincount(rows.reshape(-1), minlength=m))
        place = np.zeros(m, dtype=np.int32)
        place[asked] = np.arange(len(asked), dtype=np.int32)
        self.answers_ = float(len(rows) if counts is None else counts.sum())
        self.history_ = []
        least, most = _DIMENSIONS
        width = self.dimensions or int(min(most, max(least, self.answers_ // len(asked))))
        self.loc_ = np.zeros((m, width), dtype=np.float32)
        self.scale_ = np.full((m, width), self.prior.nearest_scale(), dtype=np.float32)
        with _one_thread():
            parts = _parts(place[rows], shares, counts, len(asked), self.seed, self.device)
            loc, log_scale = deque(self.steps(parts, len(asked)), maxlen=1)[0]
        self.loc_[asked], self.scale_[asked] = loc.cpu().numpy(), log_scale.exp().cpu().numpy()
        self._prune()
        return self

    def steps(self, parts: list[GramObjective], m: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the averaged ``loc`` and ``log_scale`` of the m answered items after each step, until they rest."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        shape = (m, self.loc_.shape[1])
        loc = torch.rand(shape, generator=generator, device=self.device).mul_(_START)
        log_scale = torch.full(shape, math.log(_START_SCALE), device=self.device)
        adam = torch.optim.Adam([loc, log_scale], lr=_RATE, betas=_BETAS, fused=True)
        mean_loc, mean_log_scale = loc.clone(), log_scale.clone()
        rest = _Rest(self.history_, self.tolerance)
        for step in range(self.max_steps):
            adam.param_groups[0]["lr"] = rest.rate * min(1.0, (step + 1) / 5)
            noise = torch.randn(shape, generator=generator, device=self.device)
            objective, loc.grad, log_scale.grad = negative_bound(
                loc, log_scale, noise, parts[step % len(parts)], self.answers_, self.prior
            )
            adam.step()
            mean_loc.lerp_(loc, max(1 / (step + 1), 1 / _AVERAGED))
            mean_log_scale.lerp_(log_scale, max(1 / (step + 1), 1 / _AVERAGED))
            yield mean_loc, mean_log_scale
            if rest.reached(objective):
                return

    def _prune(self) -> None:
        above = significant(self.loc_, self.scale_)
        self.kept_ = above.sum(axis=0) > _SIGNIFICANT
        positive = np.maximum(self.loc_, 0)
        largest = np.argsort(-positive.sum(axis=0), kind="stable")
        self.embedding_ = positive[:, [k for k in largest if self.kept_[k]]]

    def predict(self, indices: np.ndarray, samples: int = 25, seed: int = 0) -> np.ndarray:
        """Return the posterior predictive distribution over the pairs 01, 02, 12, (n, 3) float32.

        The mean of the probabilities over draws of all dimensions, kept or not, is taken (Monte Carlo).

        Raises:
            LikemindError: A row repeats an item or points outside the items.
        """
        if samples < 1:
            raise LikemindError(f"samples must be at least 1, got {samples}: mend it")
        rows = checked_triplets(indices, len(self.loc_))
        asked, place = np.unique(rows, return_inverse=True) if len(rows) * 3 < len(self.loc_) else (None, rows)
        loc, scale = torch.from_numpy(self.loc_), torch.from_numpy(self.scale_)
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            drawn = torch.addcmul(loc, scale, torch.randn(loc.shape, generator=generator)).relu_()
            return drawn if asked is None else drawn[torch.from_numpy(asked)]

        with _one_thread():
            m = len(self.loc_) if asked is None else len(asked)
            return choice_shares(draw, samples, place.reshape(-1, 3), m)

    def entropy(self, indices: np.ndarray, samples: int = 25, seed: int = 0) -> np.ndarray:
        """Return the predictive distributions' entropy in nats, (n,), between 0 and ln 3."""
        p = self.predict(indices, samples, seed).astype(np.float64)
        nats: np.ndarray = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        return nats

    def triplets(self, which: int | Triplets, *, samples: int = 25, seed: int = 0) -> Triplets:
        """Return triplets with what people would answer as their probabilities.

        Args:
            which: How many different triplets to draw, uniformly; or triplets of these items, whose other columns stay.
            samples: Draws of the posterior.
            seed: Of triplets and draws.

        Returns:
            Their source is ``human_model`` where the answers were people's or a model's of them, else the answers' own.
        """
        self._named()
        source = "human_model" if self.source_ == "human" else self.source_
        if isinstance(which, Triplets):
            indices, columns = which.positions_in(self.items_, "the posterior"), which.columns()
        else:
            indices, columns = HumanEmbedding(self.items_, self.loc_).triplets(which, seed).indices, {}
        columns["probabilities"] = self.predict(indices, samples, seed)
        return Triplets(self.items_, indices, **columns, source=source)

    def human_embedding(self) -> HumanEmbedding:
        """Return ``embedding_`` with the items' names: a model of people that reads, saves and draws like VICE.

        Raises:
            LikemindError: No dimension was kept.
        """
        self._named()
        if not self.embedding_.shape[1]:
            raise LikemindError("no dimension stands out of the noise: collect more answers")
        kind = "simulated" if self.source_ in ("simulated", "pseudo") else "human_model"
        return HumanEmbedding(self.items_, self.embedding_, kind)  # type: ignore[arg-type]

    def _named(self) -> None:
        if not self.items_:
            raise LikemindError(
                "this posterior knows no items' names: fit it with likemind.teacher.posterior.posterior"
            )

    def save(self, folder: PathLike) -> None:
        """Write ``posterior.safetensors`` and ``posterior.json``."""
        from safetensors.numpy import save

        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        write_atomic(where / "posterior.safetensors", save({"loc": self.loc_, "scale": self.scale_}))
        about = {"schema": 1, "seed": self.seed, "prior": asdict(self.prior), "answers": self.answers_}
        named = {"source": self.source_, "items": self.items_}
        write_json(where / "posterior.json", {**about, **named, "history": self.history_})

    @classmethod
    def load(cls, folder: PathLike) -> ChoicePosterior:
        """Read what ``save`` wrote.

        Raises:
            LikemindError: A file is missing, damaged, or does not fit the other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        where = Path(folder)
        about = read_json(where / "posterior.json")
        try:
            arrays = load((where / "posterior.safetensors").read_bytes())
            loc, scale = arrays["loc"], arrays["scale"]
            found = cls(loc.shape[1], prior=Prior(**about["prior"]), seed=about["seed"])
            found.items_, found.source_ = [str(item) for item in about["items"]], str(about["source"])
            found.history_, found.answers_ = about["history"], float(about["answers"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError, json.JSONDecodeError):
            raise LikemindError(f"{where} does not hold a posterior that is whole: make it again") from None
        fits = loc.shape == scale.shape and len(found.items_) in (0, len(loc)) and loc.dtype == np.float32
        if not (fits and np.isfinite(loc).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise LikemindError(f"{where / 'posterior.safetensors'} does not fit its posterior.json: make it again")
        found.loc_, found.scale_ = loc, scale
        found._prune()
        return found


class _Rest:
    """Halves the rate where a window of steps is no better than the one before, and says when to stop."""

    def __init__(self, history: list[dict[str, float]], tolerance: float) -> None:
        self.rate = _RATE
        self._history, self._tolerance = history, tolerance
        self._window: list[float] = []
        self._before = math.inf

    def reached(self, objective: float) -> bool:
        self._window.append(objective)
        if len(self._window) < _WINDOW:
            return False
        mean, error = float(np.mean(self._window)), float(np.std(self._window)) / _WINDOW**0.5
        steps = _WINDOW * (len(self._history) + 1)
        self._history.append({"steps": steps, "objective": mean, "rate": self.rate})
        self._window.clear()
        if mean > self._before - max(error, self._tolerance):
            self.rate /= 2
        self._before = mean
        return bool(self.rate < _RATE / 2**_HALVINGS * 1.5)


def posterior(
    judgements: Triplets,
    *,
    dimensions: int | None = None,
    seed: int = 0,
    prior: Prior | None = None,
    device: str = "cpu",
) -> ChoicePosterior:
    """Fit what people would answer to what they did answer.

    Args:
        judgements: Raw answers, repeated ones as often as they were given. Where there are no choices, each row's
            probabilities count as one answer.
        dimensions: As for ``ChoicePosterior``.
        seed: Decides the result, whatever the number of threads.
        prior: Of each latent number; the paper's by default.
        device: ``cpu`` or ``cuda``.

    Returns:
        The posterior of all ``judgements.items``.

    Raises:
        LikemindError: There are no answers.

    Example:
        >>> people = posterior(read_triplets("answers.parquet"))  # doctest: +SKIP
        >>> people.triplets(100_000).save("soft-answers")  # doctest: +SKIP
    """
    if judgements.choice is not None:
        targets = np.eye(3, dtype=np.float32)[np.array(ODD_OF_PAIR)[judgements.choice]]
    elif judgements.probabilities is not None:
        targets = judgements.probabilities
    else:
        raise LikemindError("these triplets hold no choices or probabilities: read them from recorded answers")
    found = ChoicePosterior(dimensions, prior=prior, seed=seed, device=device)
    found.items_, found.source_ = list(judgements.items), judgements.source
    return found.fit(judgements.indices, targets, objects=len(found.items_))


def as_posterior(
    triplets: np.ndarray, shares: np.ndarray, answers: np.ndarray, items: int, *, seed: int = 0
) -> np.ndarray:
    """Return what a posterior fitted to these answers predicts for the same triplets, (n, 3): a teacher's targets.

    Shapes:
        triplets: (n, 3) positions below ``items``. shares: (n, 3) of the answers. answers: (n,) their number.
    """
    fitted = ChoicePosterior(seed=seed).fit(triplets, shares, answers, objects=items)
    return fitted.predict(triplets, seed=seed)


def _parts(
    rows: np.ndarray, shares: np.ndarray, counts: np.ndarray | None, m: int, seed: int, device: str
) -> list[GramObjective]:
    """Deal the answers out into equal batches at random; each becomes an objective of its own."""
    batches = max(1, len(rows) // max(_BATCH, m * m // 7))
    part = np.random.default_rng(seed).permutation(len(rows)) % batches
    found = []
    for number in range(batches):
        own = np.flatnonzero(part == number)
        weights = None if counts is None else counts[own]
        found.append(GramObjective(rows[own], shares[own], weights, m, dtype=torch.float32, device=device))
    return found


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

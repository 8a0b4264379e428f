"""The parts of the suite that compare with people: their choices, their doubt, their ratings."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from likemind.choice import choose, log_probabilities
from likemind.evaluation.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    risk_coverage_area,
)
from likemind.evaluation.context import Scored
from likemind.evaluation.odd_one_out import (
    TimedTriplets,
    Trials,
    by_level,
    choice_entropy,
    chosen,
    mean,
    picked,
)
from likemind.evaluation.rsa import averaged, rsa

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from likemind.evaluation.context import Context, Subject


def agreement_scores(context: Context, split: str, cosines: torch.Tensor) -> Iterator[Scored]:
    """Yield the agreement over all held-out triplets and by level."""
    trials = context.heldout
    found = by_level(chosen(cosines), trials, context.seed, intervals=context.intervals)
    for level, value in found.items():
        best = trials.ceiling[trials.inside(level)].mean()
        yield Scored(f"{context.name}/{split}/agreement.{level}", value, chance=1 / 3, ceiling=float(best))


class Human:
    """Odd ones out, doubt, recorded answers and ratings."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._prefix = f"{context.name}/heldout"

    @cached_property
    def _timed(self) -> dict[str, TimedTriplets]:
        trials, seed = self.context.heldout, self.context.seed
        masks = {"": None} | {f".{name}": trials.level == name for name in trials.levels}
        return {name: TimedTriplets(trials, seed, mask) for name, mask in masks.items()}

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        choice = subject.choice
        yield from agreement_scores(self.context, "heldout", choice.cosines)
        nats = choice_entropy(choice.after)
        for level, timed in self._timed.items():
            if timed.n:
                metric = f"{self._prefix}/entropy_rt{level}.spearman"
                yield Scored(metric, timed.correlate(nats), chance=0.0, temperature=choice.temperature)
        yield from self._recorded(subject.rows)

    def _recorded(self, rows: np.ndarray) -> Iterator[Scored]:
        """Real answers and ratings about any of the items: few, so their intervals are wide."""
        context, data = self.context, self.context.data
        for name in data.description.answers:
            judgements = data.answers(name)
            if judgements.choice is not None and len(judgements):
                trials = Trials.of(judgements, judgements.items, name)
                chosen_pairs = picked(averaged(rows, data, judgements.items), trials)
                right = mean(chosen_pairs, trials, context.seed, trials.answers, context.intervals)
                right = replace(right, n=len(judgements))
                yield Scored(f"{name}/inside/accuracy", right, chance=1 / 3, source=judgements.source)
        for name in data.description.ratings:
            ratings = data.ratings(name)
            if len(ratings) > 2:
                value = rsa(averaged(rows, data, ratings.items), ratings, context.seed)
                yield Scored(f"{name}/inside/rsa.spearman", value, chance=0.0, source=ratings.source)


class Calibration:
    """Is the model as sure as people are divided, before and after one temperature is fitted?"""

    def __init__(self, context: Context) -> None:
        self.context = context

    @cached_property
    def _best(self) -> dict[str, float]:
        """What whoever knows people's distribution gets."""
        people = self.context.heldout.people
        nats = -(people * np.log(np.maximum(people, 1e-12))).sum(axis=1)
        return {"nll": float(nats.mean()), "brier": float((1 - np.square(people).sum(axis=1)).mean())}

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        choice = subject.choice
        yield from self._when("before", log_probabilities(choice.cosines), 1.0)
        yield from self._when("after", choice.after, choice.temperature)

    def _when(self, when: str, log_p: torch.Tensor, temperature: float) -> Iterator[Scored]:
        context, trials, p = self.context, self.context.heldout, log_p.exp().numpy()
        seed, kind = context.seed, context.intervals
        likelihood = negative_log_likelihood(log_p.numpy(), trials, seed, intervals=kind)
        found: dict[str, tuple[Any, float | None, float | None]] = {
            "ece": (expected_calibration_error(p, trials, seed, intervals=kind), None, 0.0),
            "ece_adaptive": (expected_calibration_error(p, trials, seed, adaptive=True, intervals=kind), None, 0.0),
            "brier": (brier_score(p, trials, seed, intervals=kind), 2 / 3, self._best["brier"]),
            "nll": (likelihood, float(np.log(3)), self._best["nll"]),
            "risk_coverage": (risk_coverage_area(p, trials, seed, intervals=kind), 2 / 3, None),
        }
        for name, (value, chance, ceiling) in found.items():
            metric = f"{context.name}/heldout/{name}.{when}"
            yield Scored(metric, value, chance, ceiling, higher_is_better=False, temperature=temperature)


def choices_table(subject: Subject) -> pa.Table:
    """Return a row a held-out triplet: who is in it, what people say, and what this layer says."""
    choice, trials = subject.choice, subject.context.heldout
    n = len(trials.triplets)
    ids = np.array(subject.context.ids, dtype=object)[trials.triplets]
    before = log_probabilities(choice.cosines).exp().numpy()
    columns: dict[str, Any] = {"model": [subject.model.name] * n, "layer": [subject.layer] * n}
    columns["triplet"] = np.arange(n, dtype=np.int32)
    columns |= {f"item_{k}": ids[:, k].tolist() for k in range(3)}
    columns["level"] = [name or None for name in trials.level.tolist()]
    for name, values in (("people", trials.people), ("before", before), ("after", choice.after.exp().numpy())):
        columns |= {f"{name}_{k}": values[:, k].astype(np.float32) for k in range(3)}
    columns["choice"] = choose(choice.cosines).numpy().astype(np.int8)
    columns["response_time"] = trials.mean_time().astype(np.float32)
    return pa.table(columns)

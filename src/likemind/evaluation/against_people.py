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
from likemind.evaluation.ceilings import accuracy_ceiling, majority
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
from likemind.evaluation.rsa import COEFFICIENTS, RatedPairs, averaged
from likemind.evaluation.twoafc import read_two_alternatives

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from likemind.evaluation.context import Context, Subject
    from likemind.evaluation.rsa import Coefficient
    from likemind.evaluation.twoafc import TwoAlternatives
    from likemind.readers.ratings import RatingMatrix
    from likemind.triplets import Triplets


def agreement_scores(context: Context, split: str, by_pair: np.ndarray, *, dot: bool = False) -> Iterator[Scored]:
    """Yield people's mean share for the model's choices, 1 at each in ``by_pair`` (n, 3), by level."""
    trials = context.heldout
    name, similarity = ("agreement_dot", "dot") if dot else ("agreement", None)
    for level, value in by_level(by_pair, trials, context.seed, intervals=context.intervals).items():
        best = float(trials.ceiling[trials.inside(level)].mean())
        metric = f"{context.name}/{split}/{name}.{level}"
        yield Scored(metric, value, chance=1 / 3, ceiling=best, similarity=similarity)


class Human:
    """Odd ones out, doubt, recorded answers, ratings and two-alternative judgements."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._prefix = f"{context.name}/heldout"

    @cached_property
    def _timed(self) -> dict[str, TimedTriplets]:
        trials, seed = self.context.heldout, self.context.seed
        masks = {"": None} | {f".{name}": trials.level == name for name in trials.levels}
        return {name: TimedTriplets(trials, seed, mask) for name, mask in masks.items()}

    @cached_property
    def _answers(self) -> list[tuple[str, Triplets, Trials]]:
        data = self.context.data
        read = [(name, self.context.earnest(name, data.answers(name))) for name in data.description.answers]
        return [
            (name, one, Trials.of(one, one.items, name)) for name, one in read if one.choice is not None and len(one)
        ]

    @cached_property
    def _ratings(self) -> list[tuple[str, RatingMatrix, dict[Coefficient, RatedPairs]]]:
        data = self.context.data
        read = [(name, data.ratings_of_each(name)) for name in data.description.ratings]
        return [
            (name, people[0], {one: RatedPairs(people, one) for one in COEFFICIENTS})
            for name, people in read
            if len(people[0]) > 2
        ]

    @cached_property
    def _pairs(self) -> dict[str, TwoAlternatives]:
        data = self.context.data
        files = data.description.twoafc
        return {
            name: read_two_alternatives(data.path / file, self.context.ids, data.left_out)
            for name, file in files.items()
        }

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        cosine = chosen(subject.choice.cosines)
        yield from agreement_scores(self.context, "heldout", cosine)
        yield from self._by_answer(cosine)
        if subject.raw is not None:
            yield from agreement_scores(self.context, "heldout", picked(subject.raw, self.context.heldout), dot=True)
        nats = choice_entropy(subject.choice.after)
        for level, timed in self._timed.items():
            if timed.n:
                metric = f"{self._prefix}/entropy_rt{level}.spearman"
                yield Scored(metric, timed.correlate(nats), chance=0.0, temperature=subject.choice.temperature)
        yield from self._recorded(subject.rows)

    def _by_answer(self, by_pair: np.ndarray) -> Iterator[Scored]:
        """Every answer counts once, or every triplet that most people answer alike."""
        trials, seed, kind = self.context.heldout, self.context.seed, self.context.intervals
        if trials.answers.any():
            for level, value in by_level(by_pair, trials, seed, trials.answers, intervals=kind).items():
                inside = trials.inside(level)
                counted = replace(value, n=int(trials.answers[inside].sum()))
                ceiling = accuracy_ceiling(trials, inside)
                yield Scored(f"{self._prefix}/accuracy.{level}", counted, chance=1 / 3, ceiling=ceiling)
        most, clear = majority(trials)
        right = np.repeat((by_pair * most).sum(axis=1, keepdims=True), 3, axis=1)
        as_one = replace(trials, clusters=trials.clusters.of_stimuli())
        for level, value in by_level(right, as_one, seed, clear, intervals=kind).items():
            yield Scored(f"{self._prefix}/majority.{level}", value, chance=1 / 3, ceiling=1.0)

    def _recorded(self, rows: np.ndarray) -> Iterator[Scored]:
        """Real answers and ratings about any of the items: few, so their intervals are wide."""
        context, data = self.context, self.context.data
        for name, judgements, trials in self._answers:
            by_pair = picked(averaged(rows, data, judgements.items), trials)
            right = mean(by_pair, trials, context.seed, trials.answers, context.intervals)
            ceiling = accuracy_ceiling(trials, trials.inside("all"))
            right = replace(right, n=len(judgements))
            yield Scored(f"{name}/inside/accuracy", right, 1 / 3, ceiling, source=judgements.source)
        for name, ratings, by_coefficient in self._ratings:
            about = averaged(rows, data, ratings.items)
            for coefficient, rated in by_coefficient.items():
                low, high = rated.ceiling or (None, None)
                metric, found = f"{name}/inside/rsa.{coefficient}", rated.correlate(about)
                yield Scored(metric, found, 0.0, high, ceiling_low=low, source=ratings.source)
        for name, pairs in self._pairs.items():
            value = pairs.score(rows, context.seed, context.intervals)
            yield Scored(f"{name}/inside/twoafc", value, chance=0.5, ceiling=pairs.ceiling, source=pairs.source)


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

"""Does a model pick the odd one out that people pick, and does it hesitate where they do?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata

from likemind import choice
from likemind.choice import entropy, pair_similarities
from likemind.evaluation.intervals import Estimate, mean_estimate

if TYPE_CHECKING:
    from likemind.triplets import Triplets

RT_SAMPLES = 400


@dataclass(frozen=True, eq=False)
class Trials:
    """Judgements by distinct triplet, ready to be scored.

    Attributes:
        triplets: (n, 3) rows of the embedding.
        people: (n, 3) people's distribution over the pairs.
        level: (n,) names, "" where none is given.
        trial_triplet: (t,) triplet of each timed answer. trial_person: (t,). trial_time: (t,) seconds.
    """

    triplets: np.ndarray
    people: np.ndarray
    level: np.ndarray
    trial_triplet: np.ndarray
    trial_person: np.ndarray
    trial_time: np.ndarray

    @classmethod
    def of(cls, judgements: Triplets, ids: list[str], where: str) -> Trials:
        """Group answers by triplet; rows count ``ids``."""
        rows = judgements.positions_in(ids, where)
        placed = replace(judgements, items=ids, indices=rows)
        triplets, people, _ = placed.targets()
        names = _names(triplets, len(ids))
        row_of = np.searchsorted(names, _names(np.sort(rows, axis=1), len(ids)))
        level = np.full(len(triplets), "", dtype=object)
        if judgements.level is not None:
            level[row_of] = judgements.level
        timed = (
            np.zeros(len(rows), dtype=bool)
            if judgements.response_time is None
            else np.isfinite(judgements.response_time)
        )
        time = np.zeros(0) if judgements.response_time is None else judgements.response_time[timed]
        person = (
            np.zeros(len(rows), dtype=int)
            if judgements.participant is None
            else np.unique(judgements.participant.astype(str), return_inverse=True)[1]
        )
        return cls(triplets, people, level, row_of[timed], person.reshape(-1)[timed], time)

    @property
    def ceiling(self) -> np.ndarray:
        """(n,) the largest of people's probabilities: the agreement of whoever knows the distribution."""
        best: np.ndarray = self.people.max(axis=1)
        return best

    def mean_time(self) -> np.ndarray:
        """(n,) mean response time in seconds, NaN where nobody was timed."""
        return _mean_time(self.trial_triplet, self.trial_time, np.ones(len(self.trial_time)), len(self.triplets))


def _names(triplets: np.ndarray, items: int) -> np.ndarray:
    wide = triplets.astype(np.uint64)
    names: np.ndarray = (wide[:, 0] * np.uint64(items) + wide[:, 1]) * np.uint64(items) + wide[:, 2]
    return names


def similarities(embedding: np.ndarray, trials: Trials) -> torch.Tensor:
    """Return the cosines of each triplet's pairs, (n, 3) float64; rows of the embedding have unit length."""
    return pair_similarities(torch.from_numpy(embedding).double(), torch.from_numpy(trials.triplets.astype(np.int64)))


def agreement(cosines: torch.Tensor, people: np.ndarray) -> np.ndarray:
    """Return ``choice.agreement`` of arrays: people's probability of the model's choice, (n,); 0 for a tie."""
    chosen: np.ndarray = choice.agreement(cosines, torch.from_numpy(people)).numpy()
    return chosen


def by_level(values: np.ndarray, level: np.ndarray, seed: int) -> dict[str, Estimate]:
    """Return the mean overall (``all``) and for each level that occurs."""
    names = [name for name in dict.fromkeys(level.tolist()) if name]
    return {"all": mean_estimate(values, seed)} | {
        name: mean_estimate(values, seed, level == name) for name in sorted(names)
    }


class TimedTriplets:
    """Spearman's correlation of choice entropy with response time, over triplets, with people and triplets resampled.

    Muttenthaler et al. 2025 correlate the model's uncertainty with people's response times; which coefficient they use
    is not published, rank correlation is what re-implementations use.
    """

    def __init__(self, trials: Trials, seed: int, mask: np.ndarray | None = None) -> None:
        inside = np.ones(len(trials.triplets), dtype=bool) if mask is None else mask
        keep = inside[trials.trial_triplet]
        triplet, person, time = trials.trial_triplet[keep], trials.trial_person[keep], trials.trial_time[keep]
        self._used, triplet = np.unique(triplet, return_inverse=True)
        self.n = len(self._used)
        people = int(person.max(initial=0)) + 1
        rng = np.random.default_rng([seed, self.n])
        self._samples = [(np.arange(self.n), ranks(_mean_time(triplet, time, np.ones(len(time)), self.n)))]
        for _ in range(RT_SAMPLES if self.n else 0):
            drawn = np.bincount(rng.integers(people, size=people), minlength=people) if people > 1 else np.ones(1)
            mean = _mean_time(triplet, time, drawn[person].astype(float), self.n)
            rows = rng.integers(self.n, size=self.n)
            rows = rows[np.isfinite(mean[rows])]
            self._samples.append((rows, ranks(mean[rows])))

    def correlate(self, nats: np.ndarray) -> Estimate:
        """Return Spearman's ρ between the choice's entropy, (all triplets,), and response time."""
        mine = nats[self._used]
        values = np.array([float(ranks(mine[rows]) @ theirs) for rows, theirs in self._samples])
        return Estimate(float(values[0]), values[1:], self.n)


def _mean_time(triplet: np.ndarray, time: np.ndarray, weight: np.ndarray, n: int) -> np.ndarray:
    total, count = np.bincount(triplet, time * weight, minlength=n), np.bincount(triplet, weight, minlength=n)
    return np.where(count > 0, total / np.maximum(count, 1e-12), np.nan)


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks, centred and of unit length, so that a dot product is a correlation; zeros for a constant."""
    centred: np.ndarray = rankdata(values) - (len(values) + 1) / 2
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else centred


def choice_entropy(log_p: torch.Tensor) -> np.ndarray:
    """Return the entropy of each choice in nats, (n,)."""
    nats: np.ndarray = entropy(log_p).numpy()
    return nats

"""Does a model pick the odd one out that people pick, and does it hesitate where they do?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata

from likemind import choice
from likemind.choice import ODD_OF_PAIR, entropy, gather_pairs, pair_similarities
from likemind.evaluation.clusters import Clusters
from likemind.evaluation.intervals import Crossed, Estimate, Resampled, clustered_mean, mean_estimate
from likemind.evaluation.kernel import MOST, choices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.evaluation.intervals import Intervals
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
        clusters: Which answers share images or people.
    """

    triplets: np.ndarray
    people: np.ndarray
    level: np.ndarray
    trial_triplet: np.ndarray
    trial_person: np.ndarray
    trial_time: np.ndarray
    clusters: Clusters

    @classmethod
    def of(cls, judgements: Triplets, ids: Sequence[str], where: str, categories: Sequence[str] = ()) -> Trials:
        """Group answers by triplet; rows count ``ids``.

        Where ``categories`` (of the ids) are given, and no triplet holds two images of one, images of one category
        stand for one thing, and are one cluster; else each image is one.
        """
        rows = judgements.positions_in(ids, where)
        placed = replace(judgements, items=ids, indices=rows)
        triplets, people, _ = placed.targets()
        names = _names(triplets, len(ids))
        ordered = np.sort(rows, axis=1)
        row_of = np.searchsorted(names, _names(ordered, len(ids)))
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
            else np.unique(judgements.participant.astype(str), return_inverse=True)[1].reshape(-1)
        )
        answers: tuple[np.ndarray, ...] = (np.zeros(0, dtype=np.int64),) * 3
        if judgements.choice is not None and judgements.probabilities is None:
            odd = np.take_along_axis(rows, judgements.choice[:, None].astype(np.int64), axis=1)
            answers = row_of, np.array(ODD_OF_PAIR)[(ordered == odd).argmax(axis=1)], person
        clusters = Clusters(_shown(triplets, categories), people, *answers)
        return cls(triplets, people, level, row_of[timed], person[timed], time, clusters)

    @property
    def ceiling(self) -> np.ndarray:
        """(n,) the largest of people's probabilities: the agreement of whoever knows the distribution."""
        best: np.ndarray = self.people.max(axis=1)
        return best

    @property
    def levels(self) -> list[str]:
        """Names of the levels that occur, in order."""
        return sorted({name for name in self.level.tolist() if name})

    def inside(self, level: str) -> np.ndarray:
        """(n,) whether a triplet is of a level; ``all`` are."""
        mask: np.ndarray = np.full(len(self.level), True) if level == "all" else self.level == level
        return mask

    @property
    def answers(self) -> np.ndarray:
        """(n,) number of single answers; zeros where they are not known."""
        counted: np.ndarray = np.bincount(self.clusters.triplet, minlength=len(self.triplets))
        return counted

    def mean_time(self) -> np.ndarray:
        """(n,) mean response time in seconds, NaN where nobody was timed."""
        return _mean_time(self.trial_triplet, self.trial_time, np.ones(len(self.trial_time)), len(self.triplets))


def _shown(triplets: np.ndarray, categories: Sequence[str]) -> np.ndarray:
    """Return what each place of a triplet shows: its category if none meets itself, else its image."""
    if not len(categories):
        return triplets
    shown: np.ndarray = np.unique(np.asarray(categories, dtype=str), return_inverse=True)[1].reshape(-1)[triplets]
    meets = (shown[:, 0] == shown[:, 1]) | (shown[:, 0] == shown[:, 2]) | (shown[:, 1] == shown[:, 2])
    return triplets if meets.any() else shown


def _names(triplets: np.ndarray, items: int) -> np.ndarray:
    wide = triplets.astype(np.uint64)
    names: np.ndarray = (wide[:, 0] * np.uint64(items) + wide[:, 1]) * np.uint64(items) + wide[:, 2]
    return names


def similarities(embedding: np.ndarray, trials: Trials) -> torch.Tensor:
    """Return the cosines of each triplet's pairs, (n, 3) float64; rows of the embedding have unit length.

    Where triplets are many and items few, as in THINGS, the products of all items are taken once.
    """
    used, triplets = np.unique(trials.triplets, return_inverse=True)
    rows = torch.from_numpy(embedding[used]).double()
    at = torch.from_numpy(triplets.reshape(-1, 3))
    if len(used) ** 2 < 6 * len(at):
        return gather_pairs(rows @ rows.T, at)
    return pair_similarities(rows, at)


def agreement(cosines: torch.Tensor, people: np.ndarray) -> np.ndarray:
    """Return ``choice.agreement`` of arrays: people's probability of the model's choice, (n,); 0 for a tie."""
    chosen: np.ndarray = choice.agreement(cosines, torch.from_numpy(people)).numpy()
    return chosen


def chosen(cosines: torch.Tensor) -> np.ndarray:
    """Return 1 at the pair that the model picks and 0 elsewhere, (n, 3) float64; zeros for a tie."""
    return one_hot(choice.choose(cosines).numpy())


def picked(embedding: np.ndarray, trials: Trials) -> np.ndarray:
    """Return ``chosen`` of an embedding's dot products, (n, 3), by way of the kernel for many triplets."""
    used, triplets = np.unique(trials.triplets, return_inverse=True)
    if len(used) > MOST:
        return chosen(similarities(embedding, trials))
    return one_hot(choices(embedding[used], triplets.reshape(-1, 3)))


def one_hot(pair: np.ndarray) -> np.ndarray:
    """Return 1 at each pair, (n, 3) float64; zeros for -1."""
    at: np.ndarray = (pair[:, None] == np.arange(3)).astype(np.float64)
    return at


def by_level(
    by_pair: np.ndarray,
    trials: Trials,
    seed: int,
    weights: np.ndarray | None = None,
    *,
    intervals: Intervals = "clustered",
) -> dict[str, Estimate]:
    """Return the mean of what people's answers are worth, overall (``all``) and for each level that occurs.

    Shapes:
        by_pair: (n, 3) worth of an answer for each pair, such as ``chosen``. weights: (n,) of the triplets.
    """
    inside = np.ones(len(by_pair)) if weights is None else weights
    masks = {"all": inside} | {name: inside * (trials.level == name) for name in trials.levels}
    return {name: mean(by_pair, trials, seed, mask, intervals) for name, mask in masks.items() if mask.any()}


def mean(
    by_pair: np.ndarray, trials: Trials, seed: int, weights: np.ndarray | None, intervals: Intervals = "clustered"
) -> Estimate:
    """Return the weighted mean over triplets of what people's answers are worth, with the wanted kind of interval."""
    if intervals == "clustered":
        return clustered_mean(by_pair, trials.clusters, weights)
    return mean_estimate((trials.people * by_pair).sum(axis=1), seed, weights)


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
        who, person = np.unique(person, return_inverse=True)
        self._people = len(who)
        rng = np.random.default_rng([seed, self.n])
        every = np.arange(self.n), np.ones(max(self._people, 1))
        draws = [
            (rng.integers(self.n, size=self.n), np.bincount(rng.integers(self._people, size=self._people)))
            for _ in range(RT_SAMPLES if self.n else 0)
        ]

        def ranked(rows: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            weight = np.zeros(self._people)
            weight[: len(drawn)] = drawn
            mean = _mean_time(triplet, time, weight[person], self.n)
            rows = rows[np.isfinite(mean[rows])]
            return rows, ranks(mean[rows])

        self._whole = ranked(*every) if self.n else every
        self._samples = {"stimuli": [ranked(rows, every[1]) for rows, _ in draws]}
        if self._people > 1:
            self._samples["people"] = [ranked(every[0], drawn) for _, drawn in draws]
            self._samples["both"] = [ranked(*both) for both in draws]

    def correlate(self, nats: np.ndarray) -> Estimate:
        """Return Spearman's ρ between the choice's entropy, (all triplets,), and response time."""
        mine = nats[self._used]

        def rho(rows: np.ndarray, theirs: np.ndarray) -> float:
            return float(ranks(mine[rows]) @ theirs)

        parts = {name: np.array([rho(*one) for one in samples]) for name, samples in self._samples.items()}
        value = rho(*self._whole)
        if self._people > 1:
            return Crossed(value, self.n, **parts, fewest=min(self.n, self._people))
        return Resampled(value, self.n, parts["stimuli"])


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

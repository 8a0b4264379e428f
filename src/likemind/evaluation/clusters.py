"""Answers that share an image or a person are not independent: the standard error of what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from likemind.pairs import PAIRS


class Sharing:
    """Units, each of three things; two units are related where they share a thing.

    Attributes:
        labels: (units, 3) numbers of the things.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.unique(labels, return_inverse=True)[1].reshape(-1, 3).astype(np.int64)

    @cached_property
    def _pairs(self) -> np.ndarray:
        things = int(self.labels.max(initial=0)) + 1
        both = np.stack([self.labels[:, pair] for pair in PAIRS], axis=1)
        named = both.min(axis=2) * things + both.max(axis=2)
        return np.unique(named, return_inverse=True)[1].reshape(-1, 3)

    def products(self, influence: np.ndarray) -> tuple[float, int]:
        """Return Σ ψ_s ψ_t over all units s, t that share a thing, and how many things count.

        By inclusion and exclusion: sums over things, less sums over pairs of things, and each unit with itself. Each of
        m things stands in about 3/m of the units whose mean was taken off, and pulls it along; (m+3)(m−1)/(m−3)² times
        the first sums make up for that, to first order in 1/m where all stand in equally many.

        Shapes:
            influence: (units,), summing to zero.
        """
        three = np.repeat(influence, 3)
        by_thing = np.bincount(self.labels.ravel(), three)
        things = int(np.count_nonzero(by_thing))
        correction = (things + 3) * (things - 1) / max(things - 3, 1) ** 2
        by_pair = np.bincount(self._pairs.ravel(), three)
        own = float(influence @ influence)
        return correction * float(by_thing @ by_thing) - float(by_pair @ by_pair) + own, things


@dataclass(frozen=True, eq=False)
class Clusters:
    """What the answers to triplets share.

    Attributes:
        items: (t, 3) number of the image (or of what several images show) at each place of a distinct triplet.
        people: (t, 3) the distribution of answers over the pairs.
        triplet: (answers,) of each answer; empty where single answers, or who gave them, are not known.
        pair: (answers,) the pair that was picked. person: (answers,) who did.
    """

    items: np.ndarray
    people: np.ndarray
    triplet: np.ndarray
    pair: np.ndarray
    person: np.ndarray

    @cached_property
    def _stimuli(self) -> Sharing:
        return Sharing(self.items)

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray, Sharing]:
        """Return the cell (person and triplet) of each answer, the person of each cell, and what cells share."""
        cell, of = np.unique(self.person * len(self.items) + self.triplet, return_inverse=True)
        person, triplet = cell // len(self.items), cell % len(self.items)
        things = int(self.items.max(initial=0)) + 1
        return of.reshape(-1), person, Sharing(person[:, None] * things + self.items[triplet])

    @property
    def crossed(self) -> bool:
        """Whether there are people to generalise to as well."""
        return len(np.unique(self.person)) > 1

    def of_stimuli(self) -> Clusters:
        """Return the same without people, for what is no mean over single answers."""
        none = np.zeros(0, dtype=np.int64)
        return Clusters(self.items, self.people, none, none, none)

    def error(self, influence: np.ndarray) -> tuple[float, int]:
        """Return the standard error of an estimate, and its degrees of freedom.

        All products of the influences of two answers that share an image or a person are summed (Cameron, Gelbach and
        Miller 2011; Aronow, Samii and Assenova 2015, for pairs): what the images, the people and the single answers
        contribute is each counted once. It is at least that of independent triplets.

        Shapes:
            influence: (t, 3) by pair. How much an answer for a pair moves the estimate, were it the triplet's only one.
        """
        by_triplet = (self.people * influence).sum(axis=1)
        moved = int(np.count_nonzero(by_triplet))
        floor = float(by_triplet @ by_triplet) * moved / max(moved - 1, 1)
        variance, clusters = self._stimuli.products(by_triplet)
        if self.crossed:
            cell, person, both = self._cells
            answers = np.bincount(self.triplet, minlength=len(self.items))
            by_cell = np.bincount(cell, influence[self.triplet, self.pair] / answers[self.triplet])
            by_person = np.bincount(person, by_cell)
            count = int(np.count_nonzero(by_person))
            of_people = float(by_person @ by_person) * count / max(count - 1, 1)
            variance += of_people - both.products(by_cell)[0]
            floor, clusters = max(floor, of_people), min(clusters, count)
        return float(np.sqrt(max(variance, floor))), max(clusters - 1, 1)

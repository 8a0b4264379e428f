"""The parts of the suite that need labels alone: learning new classes, and what lies together."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from likemind.episodes import chance, draw_episodes
from likemind.evaluation.context import Scored
from likemind.evaluation.fewshot import fewshot, fewshot_calibrated, halves, linear_probe, nearest_neighbours
from likemind.evaluation.rsa import RatedPairs
from likemind.evaluation.structure import (
    colour_of,
    common_depth,
    grouping,
    neighbours,
    same_colour,
    similarity_by,
)
from likemind.evaluation.tree import paths_of
from likemind.readers.ratings import RatingMatrix
from likemind.student.model import unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.datasets.evaluation_set import Item
    from likemind.episodes import Episode
    from likemind.evaluation.context import Context, Subject

SHOTS = {1: 40, 5: 40, 10: 20}
"""Examples a class → number of tasks."""


class Generalisation:
    """Learning classes that nothing in the training showed."""

    def __init__(self, context: Context) -> None:
        few = context.data.select(fewshot="heldout")
        self._categories = [item.category for item in few]
        self._seed = context.seed
        self._prefix = context.data.description.tasks or f"{context.name}/heldout"
        self._rows = context.rows_of([item.id for item in few])

    @cached_property
    def _tasks(self) -> dict[int, list[Episode]]:
        """Tasks for each k for which there are classes enough; one and five are always asked for."""
        counts = np.unique(self._categories, return_counts=True)[1]
        return {
            k: draw_episodes(self._categories, k, self._seed, episodes=episodes)
            for k, episodes in SHOTS.items()
            if self._categories and (k <= 5 or (counts > k).sum() > 1)
        }

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        yield from self.fewshot(self._prefix, subject.rows)
        learn, _ = halves(self._categories, self._seed)
        if len(learn):
            rows = subject.rows[self._rows]
            guess = 1 / len({self._categories[row] for row in learn})
            for name, accuracy in (("knn", nearest_neighbours), ("probe", linear_probe)):
                value = accuracy(rows, self._categories, self._seed)
                yield Scored(f"{self._prefix}/{name}", value, guess, 1.0, source="labels")

    def fewshot(self, prefix: str, rows: np.ndarray) -> Iterator[Scored]:
        """Yield few-shot accuracy and its calibration, also for rows under a shift."""
        for k, tasks in self._tasks.items():
            guess, few = chance(tasks), rows[self._rows]
            found = fewshot_calibrated(few, tasks, self._seed)
            yield Scored(f"{prefix}/fewshot.k{k}", found["fewshot"], guess, 1.0, source="labels")
            value = fewshot(few, tasks, self._seed, method="centroid")
            yield Scored(f"{prefix}/centroid.k{k}", value, guess, 1.0, source="labels")
            for name, blind in (("fewshot_ece", None), ("fewshot_nll", -float(np.log(guess)))):
                metric = f"{prefix}/{name}.k{k}"
                yield Scored(metric, found[name], blind, 0.0, higher_is_better=False, source="labels")


class Structure:
    """Do things lie together by meaning, by colour, along a tree?"""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._prefix = f"{context.name}/heldout"
        held = context.data.select("heldout")
        self._grouped = [item for item in held if item.group]
        members = {category: [item for item in held if item.category == category] for category in _names(held)}
        self._kin = [item for item in held if len(members[item.category]) > 1]
        """Those that have others of their category."""

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        groups = [item.group for item in self._grouped]
        if len(set(groups)) > 1:
            rows = subject.rows[self.context.rows_of([item.id for item in self._grouped])]
            value = grouping(rows, groups, self.context.seed)
            yield Scored(f"{self._prefix}/grouping.ami", value, chance=0.0, ceiling=1.0, source="labels")
        yield from self._neighbours(subject.rows)
        yield from self._along_the_tree(subject.rows)

    @cached_property
    def _confounded(self) -> dict[str, np.ndarray]:
        """Which pairs share the colour and not the category, and which the category and not the colour."""
        images = self.context.data.images().select([item.id for item in self._kin])
        colour = same_colour(np.stack([colour_of(images.read(row)) for row in range(len(images))]))
        category = np.array([item.category for item in self._kin])
        kind = category[:, None] == category[None]
        return {"colour": colour & ~kind, "meaning": kind & ~colour}

    def _neighbours(self, rows: np.ndarray) -> Iterator[Scored]:
        if len({item.category for item in self._kin}) > 1:
            own = rows[self.context.rows_of([item.id for item in self._kin])]
            for name, wanted in self._confounded.items():
                value, others = neighbours(own, wanted, self.context.seed)
                metric, higher = f"{self._prefix}/neighbours.{name}", name == "meaning"
                yield Scored(metric, value, others, higher_is_better=higher, source="labels")

    @cached_property
    def _tree(self) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, list[int]], RatedPairs | None]:
        """Rows of items in the tree, kinds of pairs, places of each category in these, and categories' distances."""
        held = self.context.data.select("heldout")
        paths = paths_of(self.context.data, held)
        inside = [item for item in held if item.category in paths]
        places = {name: [k for k, item in enumerate(inside) if item.category == name] for name in _names(inside)}
        rows = self.context.rows_of([item.id for item in inside])
        if len(places) < 2:
            return rows, {}, places, None
        depth = common_depth([paths[name] for name in places])
        of = np.array([list(places).index(item.category) for item in inside])
        between, same = depth[of][:, of], of[:, None] == of[None]
        between = np.maximum(between, 0)  # things in two trees share as little as under one root
        kinds = {f"level{d}": (between == d) & ~same for d in range(int(depth.max()) + 1)}
        kinds = {name: pairs for name, pairs in kinds.items() if pairs.any()}
        if any(len(place) > 1 for place in places.values()):
            kinds["within"] = same
        apart = set(depth[~np.eye(len(depth), dtype=bool)].tolist())
        if len(places) < 3 or len(apart) < 2:
            return rows, kinds, places, None
        far = float(depth.max()) + 1.0 - depth
        np.fill_diagonal(far, 0)
        return rows, kinds, places, RatedPairs([RatingMatrix(list(places), far)], "spearman")

    def _along_the_tree(self, rows: np.ndarray) -> Iterator[Scored]:
        inside, kinds, places, rated = self._tree
        own = rows[inside]
        if kinds:
            for name, value in similarity_by(own, kinds, self.context.seed).items():
                metric, higher = f"{self._prefix}/tree.{name}", name != "level0"
                yield Scored(metric, value, 0.0, higher_is_better=higher, source="labels")
        if rated is not None:
            about = unit(np.stack([own[place].mean(axis=0) for place in places.values()]))
            yield Scored(f"{self._prefix}/tree.spearman", rated.correlate(about), 0.0, 1.0, source="labels")


def _names(items: list[Item]) -> list[str]:
    return sorted({item.category for item in items})

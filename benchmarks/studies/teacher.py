"""Teachers on photographs of five splits: agreement with people and few-shot accuracy on concepts not seen.

    python benchmarks/studies/photographs.py OUT      # once
    python benchmarks/studies/teacher.py OUT          # as `likemind teach` chooses them, one network and three
    python benchmarks/studies/teacher.py OUT --frontier

Prints Markdown rows for ``docs/teacher.md``. Agreement is with VICE, a model of people that was fitted to answers over
all concepts, the held-out ones too (``human_model``); cosine; held-out triplets are of held-out concepts alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from photographs import SEEDS, SIZES

import likemind
from likemind.choice import agreement
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.episodes import Episode, accuracies, draw_episodes
from likemind.evaluation.intervals import Estimate, mean_estimate
from likemind.features.store import FeatureStore
from likemind.teacher.affine import AffineProblem, Solution
from likemind.teacher.gram import dot_pairs
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Held:
    """What a split holds out: triplets with people's distribution, and few-shot tasks over unseen classes."""

    features: np.ndarray
    triplets: np.ndarray
    people: np.ndarray
    pictures: np.ndarray
    tasks: dict[int, list[Episode]]

    @classmethod
    def of(cls, world: EvaluationSet, store: FeatureStore, seed: int) -> Held:
        """Gather it, features by id."""
        judged = world.judgements("heldout")
        items = world.select(fewshot="heldout")
        assert judged.probabilities is not None
        tasks = {k: draw_episodes([item.category for item in items], k, seed) for k in (1, 5)}
        return cls(
            store.rows(judged.used_items),
            judged.positions_in(judged.used_items, "the features"),
            judged.probabilities.astype(float),
            store.rows([item.id for item in items]),
            tasks,
        )

    def score(self, teacher: Teacher) -> dict[str, np.ndarray]:
        """Return agreement a triplet, and accuracy a task, of unit rows."""
        z = torch.from_numpy(_unit(teacher.transform(self.features)))
        right = {
            f"{k}-shot": accuracies(_unit(teacher.transform(self.pictures)), tasks) for k, tasks in self.tasks.items()
        }
        return {"agreement": agreement(dot_pairs(z, self.triplets), torch.from_numpy(self.people)).numpy(), **right}


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    unit: np.ndarray = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def _said(ours: np.ndarray, theirs: np.ndarray, seed: int) -> str:
    found: Estimate = mean_estimate(100 * (ours - theirs), seed)
    low, high = found.interval
    return f"{found.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def chosen(out: Path) -> None:
    """Teach as users do, and print a row a split and input."""
    print("| input | split | penalty, mix | agreement: base → teacher | gain | 1-shot | 5-shot | ceiling |")
    print("|---|---|---|---|---|---|---|---|")
    for nets in (["lite0"], list(SIZES)):
        gains = []
        store = FeatureStore.load([out / net for net in nets])
        for seed in SEEDS:
            world = EvaluationSet.load(out / f"world-{seed}")
            where = out / f"teacher-{'-'.join(nets)}-{seed}"
            teacher = likemind.teach(
                store,
                world.judgements("train"),
                out=where,
                groups=world.path / "items.parquet",
                seed=seed,
                overwrite=True,
            )
            held = Held.of(world, store, seed)
            base, ours = held.score(teacher.untransformed()), held.score(teacher)
            gains.append([ours[name].mean() - base[name].mean() for name in ours])
            differences = " | ".join(_said(ours[name], base[name], seed) for name in ours)
            before, after, ceiling = base["agreement"].mean(), ours["agreement"].mean(), held.people.max(axis=1).mean()
            cells = f"{teacher.penalty:g}, {teacher.mix:g} | {before:.3f} → {after:.3f} | {differences} | {ceiling:.3f}"
            print(f"| {' + '.join(nets)} | {seed} | {cells} |", flush=True)
        mean = [f"{100 * value:+.1f}" for value in np.mean(gains, axis=0)]
        print(f"| {' + '.join(nets)} | mean | | | {' | '.join(mean)} | |", flush=True)


def frontier(out: Path) -> None:
    """Print, for one network, the mean over splits of what each way of fitting gains and costs."""
    store = FeatureStore.load(out / "lite0")
    rows: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        world = EvaluationSet.load(out / f"world-{seed}")
        held = Held.of(world, store, seed)
        base = held.score(Teacher().take(*_plain(world, store)))
        for name, teacher in _ways(world, store):
            ours = held.score(teacher)
            rows.setdefault(name, []).append([100 * float(ours[what].mean() - base[what].mean()) for what in ours])
    print("| teacher | agreement | 1-shot | 5-shot |\n|---|---|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{value:+.1f}' for value in np.mean(found, axis=0))} |", flush=True)


def _plain(world: EvaluationSet, store: FeatureStore) -> tuple[AffineProblem, Solution]:
    problem = _problem(world, store)
    return problem, problem.identity()


def _problem(
    world: EvaluationSet, store: FeatureStore, pictures: int | None = None, local: float = 0.0
) -> AffineProblem:
    judged = world.judgements("train")
    items = judged.used_items
    indices = judged.positions_in(items, "the judged items")
    if pictures is not None:  # of each concept: the first ones stand for all
        shows = {item.id: item.category for item in world.items}
        first: dict[str, list[int]] = {}
        for row, name in enumerate(items):
            first.setdefault(shows[name], []).append(row)
        alike = [first[shows[name]] for name in items]
        stand_in = np.array([same[same.index(row) % pictures] for row, same in enumerate(alike)])
        indices = stand_in[indices]
    used, indices = np.unique(indices, return_inverse=True)
    others = store.rows(items) if local else None
    return AffineProblem(
        store.rows([items[row] for row in used]),
        indices.reshape(-1, 3),
        judged.probabilities,
        others=others,
        local_weight=local,
    )


def _ways(world: EvaluationSet, store: FeatureStore) -> Iterator[tuple[str, Teacher]]:
    penalties = (0.03, 0.01, 0.003, 0.001, 0.0003)
    problem = _problem(world, store)
    for penalty, found in _path(problem, penalties):
        for mix in (1.0, 0.5, 0.25):
            yield f"penalty {penalty:g}, mix {mix:g}", Teacher(penalty, mix=mix).take(problem, found)
        for rank in (8, 64) if penalty in (0.003, 0.0003) else ():
            yield f"penalty {penalty:g}, rank {rank}", Teacher(penalty).take(problem, _truncated(found, rank))
    for local in (0.1, 0.3):
        problem = _problem(world, store, local=local)
        for penalty, found in _path(problem, penalties[1:4]):
            yield f"penalty {penalty:g}, local term {local:g}", Teacher(penalty).take(problem, found)
    for pictures in (1, 2, 4):
        problem = _problem(world, store, pictures)
        for penalty, found in _path(problem, penalties[1:3]):
            yield f"penalty {penalty:g}, at most {pictures} of a concept", Teacher(penalty).take(problem, found)


def _path(problem: AffineProblem, penalties: tuple[float, ...]) -> Iterator[tuple[float, Solution]]:
    last = None
    for penalty in penalties:
        last = problem.solve(penalty, last)
        yield penalty, last


def _truncated(solution: Solution, rank: int) -> Solution:
    """Keep the largest directions in which a map departs from the scaled identity."""
    eye = torch.eye(len(solution.core)).to(solution.core) * solution.outside
    left, size, right = torch.linalg.svd(solution.core - eye)
    core = eye + (left[:, :rank] * size[:rank]) @ right[:rank]
    return Solution(core, solution.shift, solution.outside, solution.loss)


def main() -> None:
    """Print one table or the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frontier", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    (frontier if asked.frontier else chosen)(asked.out)


if __name__ == "__main__":
    main()

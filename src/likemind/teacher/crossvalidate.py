"""Which map to trust: judged by people's answers, and by few-shot accuracy, on objects that the fit has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likemind.choice import agreement, fit_temperature, log_probabilities
from likemind.episodes import Episode, accuracies, draw_episodes
from likemind.errors import LikemindError
from likemind.progress import track
from likemind.teacher.affine import AffineProblem
from likemind.teacher.gram import dot_pairs
from likemind.teacher.teacher import IDENTITY, Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.teacher.affine import Solution

SHOTS = 5
EPISODES = 32
"""Few-shot tasks a fold."""

_JUDGED = 2**17
"""Validation triplets a fold that are looked at, evenly spread over all: more would not make figures surer."""

_CLASSES, _IMAGES = 50, 15
_BINS = 15

Targets = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""(triplets, shares of answers, their number, items) → people's distribution for each triplet."""


@dataclass(frozen=True, eq=False)
class Answered:
    """Objects, what they look like to a backbone, and what people answered.

    Attributes:
        X: (m, d) features of the judged items.
        triplets: (n, 3) rows of X.
        targets: (n, 3) share of the answers that each pair got.
        answers: (n,) their number.
        object_of: (m,) which object each row shows, 0….
        pictures: (k, d) features of pictures whose object is known, for few-shot tasks.
        shows: (k,) their objects; numbers beyond those of ``object_of`` are of objects that nobody was asked about.
        blocks: Widths of the features that were joined.
        others: (j, d) features of other images, for the local term.
        levels: (n,) kind of each triplet, if known.
    """

    X: np.ndarray
    triplets: np.ndarray
    targets: np.ndarray
    answers: np.ndarray
    object_of: np.ndarray
    pictures: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    shows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    blocks: Sequence[int] | None = None
    others: np.ndarray | None = None
    levels: np.ndarray | None = None

    def problem(self, targets: Targets, local_weight: float, objects: np.ndarray | None = None) -> AffineProblem:
        """Return the fit to these objects' own triplets; to all of them if None."""
        rows = np.arange(len(self.X)) if objects is None else np.flatnonzero(objects[self.object_of])
        place = np.full(len(self.X), -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)
        triplets = place[self.triplets]
        inside = (triplets >= 0).all(axis=1)
        chosen, answers = triplets[inside], self.answers[inside]
        people = targets(chosen, self.targets[inside], answers, len(rows))
        return AffineProblem(
            self.X[rows], chosen, people, answers, blocks=self.blocks, others=self.others, local_weight=local_weight
        )


def as_counted(_: np.ndarray, shares: np.ndarray, *__: Any) -> np.ndarray:
    """Return the shares of the answers as people's distribution."""
    return shares


def cross_validate(
    data: Answered,
    *,
    folds: int,
    penalties: Sequence[float],
    mixes: Sequence[float] = (1.0,),
    local_weight: float = 0.0,
    targets: Targets = as_counted,
    max_loss: float = 1.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return, for the identity (penalty None) and each penalty and mix, how well people are met on unseen objects.

    A fold's map is fitted on triplets whose three objects are all in training, and judged on triplets with two or three
    held-out objects: no pair of these was seen. With one held-out object the pair of the other two was, and answers by
    heart would look like knowledge (photographs: such triplets choose a penalty ten times too weak).

    Returns:
        A row a candidate, the identity first. ``temperature``: the one that suits the validation triplets best.
        ``cross_entropy`` at it, and ``agreement``, weighted by answers, by ``levels`` too where they are known;
        ``calibration_error`` of its probabilities; ``n``: triplets judged. ``gain``: cross-entropy
        saved against the identity; ``gain_needed``: two standard errors of it. ``departure``: ‖W − cI‖ / ‖W‖, mean
        over folds. Where pictures of unseen objects allow it, ``fewshot``: 5-shot accuracy on classes that the fold's
        map has not seen, and ``fewshot_loss``: points lost against the identity, episodes paired, with its
        ``fewshot_loss_error``, a standard error. ``behind``: cross-entropy above the best allowed candidate's, with its
        ``behind_error``, a standard error. ``chosen``: whether this is the one to trust.

        Allowed are the identity and what beats it by two standard errors, and whose 5-shot loss (where it was measured)
        is under ``max_loss`` points. Of those within one standard error of the best, the one is chosen that departs
        least from the identity.

    Raises:
        LikemindError: There are too few answers for the folds.
    """
    fold_of = np.random.default_rng(seed).permutation(data.object_of.max() + 1) % folds
    candidates = [(IDENTITY, 1.0), *((penalty, mix) for penalty in penalties for mix in mixes)]
    seen = [_Candidate(*candidate) for candidate in candidates]
    rows = []
    for fold in track(range(folds), total=folds, what="teach (folds)"):
        unseen = (fold_of == fold)[data.object_of][data.triplets].sum(axis=1)
        held = np.flatnonzero(unseen > 1)
        if not len(held) or unseen.all():
            raise LikemindError(f"the answers are too few for {folds} folds of objects: give more, or fewer --folds")
        rows.append(held[:: -(-len(held) // _JUDGED)])
        problem = data.problem(targets, local_weight, fold_of != fold)
        tasks = _tasks(data, fold_of != fold, seed * folds + fold)
        solutions = _path(problem, penalties)
        for one in seen:
            one.judge(data, problem, solutions[one.penalty], rows[-1], tasks)
    looked_at = np.concatenate(rows)
    return _table(seen, data, looked_at, max_loss)


def _path(problem: AffineProblem, penalties: Sequence[float]) -> dict[float, Solution]:
    """Solve from the strongest penalty to the weakest, each from where the last one ended."""
    found = {IDENTITY: problem.identity()}
    last = found[IDENTITY]
    for penalty in sorted(penalties, reverse=True):
        found[penalty] = last = problem.solve(penalty, last)
    return found


def _tasks(data: Answered, training: np.ndarray, seed: int) -> list[tuple[np.ndarray, list[Episode]]]:
    """Return the pictures of classes that this fold has not seen, and few-shot tasks over them; none if too few."""
    judged = data.shows < len(training)
    unseen = ~judged | ~training[np.where(judged, data.shows, 0)] if len(data.shows) else judged
    names, counts = np.unique(data.shows[unseen], return_counts=True)
    rng = np.random.default_rng(seed)
    classes = rng.permutation(names[counts > SHOTS])[:_CLASSES]
    if len(classes) < 2:
        return []
    drawn = [rng.permutation(np.flatnonzero(data.shows == name))[:_IMAGES] for name in classes]
    rows = np.concatenate(drawn)
    return [(rows, draw_episodes([str(name) for name in data.shows[rows]], SHOTS, seed, episodes=EPISODES))]


@dataclass
class _Candidate:
    """What is known of one penalty and mix, fold by fold."""

    penalty: float
    mix: float
    similarities: list[torch.Tensor] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)
    departures: list[float] = field(default_factory=list)

    def judge(
        self,
        data: Answered,
        problem: AffineProblem,
        solution: Solution,
        rows: np.ndarray,
        tasks: list[tuple[np.ndarray, list[Episode]]],
    ) -> None:
        teacher = Teacher(self.penalty, mix=self.mix).take(problem, solution)
        self.similarities.append(dot_pairs(torch.from_numpy(teacher.transform(data.X)), data.triplets[rows]).double())
        self.departures.append(problem.departure(solution.mixed(self.mix)))
        for pictures, episodes in tasks:
            embedding = teacher.transform(data.pictures[pictures])
            embedding /= np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
            self.right.append(accuracies(embedding, episodes))


def _table(seen: list[_Candidate], data: Answered, rows: np.ndarray, max_loss: float) -> list[dict[str, Any]]:
    answers, objects = data.answers[rows], data.object_of[data.triplets[rows]]
    levels = np.empty(0, dtype=object) if data.levels is None else data.levels[rows]
    table: list[dict[str, Any]] = []
    losses: list[np.ndarray] = []
    for one in seen:
        row, loss = _judged(one, data.targets[rows], answers, levels)
        losses.append(loss)
        gains = losses[0] - loss
        row["gain"] = float(np.average(gains, weights=answers))
        row["gain_needed"] = 2 * standard_error(gains, answers, objects)
        table.append(row | _fewshot(one, seen[0]))
    allowed = [
        number
        for number, row in enumerate(table)
        if number == 0 or (row["gain"] >= row["gain_needed"] and row.get("fewshot_loss", 0.0) < max_loss)
    ]
    best = min(allowed, key=lambda number: table[number]["cross_entropy"])
    for row, loss in zip(table, losses, strict=True):
        row["behind"] = row["cross_entropy"] - table[best]["cross_entropy"]
        row["behind_error"] = standard_error(loss - losses[best], answers, objects)
    near = [number for number in allowed if table[number]["behind"] <= table[number]["behind_error"]]
    chosen = min(near, key=lambda number: table[number]["departure"])
    return [row | {"chosen": number == chosen} for number, row in enumerate(table)]


def _judged(
    one: _Candidate, targets: np.ndarray, answers: np.ndarray, levels: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    similarities = torch.cat(one.similarities)
    temperature = fit_temperature(similarities, torch.from_numpy(targets * (answers / answers.mean())[:, None]))
    loss = -(targets * log_probabilities(similarities, temperature).numpy()).sum(axis=1)
    agreed = agreement(similarities, torch.from_numpy(targets)).numpy()
    row: dict[str, Any] = {
        "penalty": None if one.penalty == IDENTITY else one.penalty,
        "mix": one.mix,
        "temperature": temperature,
        "cross_entropy": float(np.average(loss, weights=answers)),
        "agreement": float(np.average(agreed, weights=answers)),
        "n": len(loss),
        "calibration_error": _calibration_error(similarities, temperature, targets, answers),
        "departure": float(np.mean(one.departures)),
    }
    for level in sorted(set(levels)):
        inside = levels == level
        row.setdefault("levels", {})[level] = float(np.average(agreed[inside], weights=answers[inside]))
    return row, loss


def _calibration_error(
    similarities: torch.Tensor, temperature: float, targets: np.ndarray, answers: np.ndarray
) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of the chosen pair, over 15 equal bins of confidence."""
    confidence, pair = log_probabilities(similarities, temperature).exp().max(dim=1)
    right = targets[np.arange(len(targets)), pair.numpy()]
    share = answers / answers.sum()
    bins = np.minimum((confidence.numpy() * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, share * (confidence.numpy() - right))).sum())


def _fewshot(one: _Candidate, identity: _Candidate) -> dict[str, float]:
    if not one.right:
        return {}
    right = np.concatenate(one.right)
    lost = 100 * (np.concatenate(identity.right) - right)
    error = float(lost.std(ddof=1) / len(lost) ** 0.5)
    return {"fewshot": float(right.mean()), "fewshot_loss": float(lost.mean()), "fewshot_loss_error": error}


def standard_error(values: np.ndarray, weights: np.ndarray, objects: np.ndarray) -> float:
    """Return the standard error of a weighted mean over triplets, where triplets with an object in common go together.

    The covariances of all pairs of triplets that share an object are summed, by inclusion and exclusion over shared
    objects, pairs and triplets (Cameron, Gelbach and Miller 2011); never less than that of independent triplets.

    Shapes:
        values: (n,). weights: (n,). objects: (n, 3).
    """
    share = weights / weights.sum()
    parts = share * (values - share @ values)
    a, b, c = np.sort(objects, axis=1).T.astype(np.int64)
    m = int(objects.max()) + 1
    ab, bc, abc = a < b, b < c, (a < b) & (b < c)  # two pictures of an object are one object
    objects_of = [(a, parts), (b[ab], parts[ab]), (c[bc], parts[bc])]
    pairs_of = [((a * m + b)[ab], parts[ab]), ((b * m + c)[bc], parts[bc]), ((a * m + c)[abc], parts[abc])]
    triplets_of = [(((a * m + b) * m + c)[abc], parts[abc])]
    shared = _squares(objects_of) - _squares(pairs_of) + _squares(triplets_of)
    return float(max(shared, float((parts**2).sum())) ** 0.5)


def _squares(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Sum up the parts that have a name in common; return the sum of these sums' squares."""
    names, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    sums = np.bincount(np.unique(names, return_inverse=True)[1].reshape(-1), values)
    return float((sums**2).sum())

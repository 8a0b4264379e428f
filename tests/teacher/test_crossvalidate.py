from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from likemind.teacher import crossvalidate as module
from likemind.teacher.affine import Solution
from likemind.teacher.crossvalidate import Answered, cross_validate, standard_error

if TYPE_CHECKING:
    from likemind.teacher.affine import AffineProblem

    from .conftest import World


def plain(world: World, **changes: Any) -> Answered:
    ones, objects = np.ones(len(world.triplets)), np.arange(len(world.X))
    return replace(Answered(world.X, world.triplets, world.answers, ones, objects), **changes)


# --- the standard error


def by_pairs(values: np.ndarray, weights: np.ndarray, objects: np.ndarray) -> float:
    """The covariance of every two triplets that share an object, one by one."""
    share = weights / weights.sum()
    parts = share * (values - share @ values)
    sets = [set(row) for row in objects.tolist()]
    total = sum(parts[s] * parts[t] for s in range(len(sets)) for t in range(len(sets)) if sets[s] & sets[t])
    return float(max(total, float((parts**2).sum())) ** 0.5)


@pytest.mark.parametrize("objects", [4, 9, 60])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_all_pairs_with_an_object_in_common(seed: int, objects: int) -> None:
    """Triplets occur twice, and show an object twice, or three times."""
    rng = np.random.default_rng(seed)
    triplets = rng.integers(objects, size=(120, 3))
    triplets[60:80] = triplets[:20][:, [2, 0, 1]]
    values = rng.normal(size=objects)[triplets].sum(1) + rng.normal(size=120)
    weights = rng.integers(1, 6, size=120).astype(float)
    assert standard_error(values, weights, triplets) == pytest.approx(by_pairs(values, weights, triplets), rel=1e-9)


def test_of_triplets_that_share_nothing_it_is_the_plain_one() -> None:
    values, ones = np.random.default_rng(0).normal(size=30), np.ones(30)
    apart = np.arange(90).reshape(30, 3)
    assert standard_error(values, ones, apart) == pytest.approx(values.std() / 30**0.5)


def test_the_error_covers_what_objects_do() -> None:
    """Objects have effects of their own: the plain error misses most of a mean's spread, this one does not."""
    rng = np.random.default_rng(7)
    means, ours, naive = [], [], []
    for _ in range(150):
        triplets = np.stack([rng.choice(40, 3, replace=False) for _ in range(400)])
        values = rng.normal(size=40)[triplets].sum(1) + 0.5 * rng.normal(size=400)
        means.append(values.mean())
        ours.append(standard_error(values, np.ones(400), triplets))
        naive.append(values.std() / 400**0.5)
    spread, told, plainly = np.std(means), np.mean(ours), np.mean(naive)
    assert plainly < 0.4 * spread
    assert 0.75 * spread < told < 1.15 * spread
    covered = np.mean(np.abs(means) < 1.96 * np.array(ours))
    assert 0.85 < covered <= 0.99
    assert np.mean(np.abs(means) < 1.96 * np.array(naive)) < 0.6


# --- the choice


class Told:
    """A table from made-up candidates: (cross-entropy a triplet, departure, few-shot right or None)."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._data, self._patch = plain(world), monkeypatch

    def __call__(self, *told: tuple[float, float, float | None], noise: float = 0.0) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        n = len(self._data.triplets)
        drawn = noise * rng.normal(size=(len(told), n))
        losses = {number: one[0] + drawn[number] - drawn[number].mean() for number, one in enumerate(told)}
        seen = []
        for number, (_, departure, right) in enumerate(told):
            one = module._Candidate(module.IDENTITY if number == 0 else 1.0 / number, 1.0)
            one.departures = [departure]
            if right is not None:
                one.right = [right + 0.001 * np.random.default_rng(1).normal(size=40)]
            seen.append(one)

        def judged(one: module._Candidate, *_: Any) -> tuple[dict[str, Any], np.ndarray]:
            loss = losses[seen.index(one)]
            penalty = None if one.penalty == module.IDENTITY else one.penalty
            row = {"penalty": penalty, "cross_entropy": float(loss.mean()), "departure": one.departures[0]}
            return row, loss

        self._patch.setattr(module, "_judged", judged)
        return module._table(seen, self._data, np.arange(n), max_loss=1.0)


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(world, monkeypatch)


def chosen(table: list[dict[str, Any]]) -> int:
    (row,) = [number for number, row in enumerate(table) if row["chosen"]]
    return row


def test_the_best_is_chosen_where_it_is_clearly_the_best(told: Told) -> None:
    assert chosen(told((1.0, 0.0, None), (0.9, 0.2, None), (0.5, 0.6, None))) == 2


def test_a_map_must_beat_the_identity_by_two_standard_errors(told: Told) -> None:
    table = told((1.0, 0.0, None), (0.99, 0.3, None), noise=1.0)
    assert 0 < abs(table[1]["gain"]) < table[1]["gain_needed"]
    assert chosen(table) == 0
    assert chosen(told((1.0, 0.0, None), (0.7, 0.3, None), noise=1.0)) == 1
    assert chosen(told((1.0, 0.0, None), (1.3, 0.3, None))) == 0


def test_within_one_standard_error_the_least_departure_is_chosen(told: Told) -> None:
    table = told((2.0, 0.0, None), (1.01, 0.3, None), (1.0, 0.6, None), (1.5, 0.1, None), noise=0.5)
    assert all(table[row]["behind"] <= table[row]["behind_error"] for row in (1, 2))
    assert table[3]["behind"] > table[3]["behind_error"]
    assert chosen(table) == 1
    assert chosen(told((2.0, 0.0, None), (1.01, 0.3, None), (1.0, 0.6, None))) == 2  # no noise, no doubt


def test_a_map_that_loses_too_many_points_is_not_chosen(told: Told) -> None:
    table = told((2.0, 0.0, 0.9), (0.5, 0.6, 0.88), (1.0, 0.5, 0.895))
    assert [round(row["fewshot_loss"], 6) for row in table] == [0.0, 2.0, 0.5]
    assert chosen(table) == 2
    assert table[1]["behind"] == pytest.approx(-0.5)  # the best *allowed* candidate is what the others are behind
    assert chosen(told((2.0, 0.0, 0.9), (0.5, 0.6, 0.85), (1.0, 0.5, 0.85))) == 0


def rule(table: list[dict[str, Any]], max_loss: float) -> int:
    """The documented rule, from a table's own columns."""
    allowed = [
        row
        for row in table
        if row["penalty"] is None or (row["gain"] >= row["gain_needed"] and row.get("fewshot_loss", 0) < max_loss)
    ]
    best = min(allowed, key=lambda row: row["cross_entropy"])
    near = [row for row in allowed if row["cross_entropy"] - best["cross_entropy"] <= row["behind_error"]]
    return table.index(min(near, key=lambda row: row["departure"]))


@pytest.mark.parametrize("max_loss", [100.0, 1.0, 0.0, -100.0])
def test_a_real_table_follows_the_rule(world: World, max_loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EPISODES", 4)
    pictures, shows = snapshots(world)
    data = plain(world, pictures=pictures, shows=shows)
    table = cross_validate(data, folds=2, penalties=[0.3, 0.01], mixes=[1.0, 0.5], max_loss=max_loss)
    assert [(row["penalty"], row["mix"]) for row in table] == [
        (None, 1.0), *((penalty, mix) for penalty in (0.3, 0.01) for mix in (1.0, 0.5))
    ]  # fmt: skip
    assert chosen(table) == rule(table, max_loss)
    assert max_loss >= 0 or chosen(table) == 0
    assert max_loss < 100 or chosen(table) > 0
    departures = {(row["penalty"], row["mix"]): row["departure"] for row in table}
    assert departures[None, 1.0] == pytest.approx(0.0, abs=1e-9)
    assert departures[0.3, 0.5] < departures[0.3, 1.0] < departures[0.01, 1.0]


def test_penalties_are_solved_from_the_strongest_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, bool]] = []
    real = module.AffineProblem.solve

    def solve(self: AffineProblem, penalty: float, start: Solution | None = None) -> Solution:
        calls.append((penalty, start is not None))
        return real(self, penalty, start)

    monkeypatch.setattr(module.AffineProblem, "solve", solve)
    cross_validate(plain(world), folds=2, penalties=[0.03, 0.3, 0.1], mixes=[1.0, 0.5])
    assert calls == [(0.3, True), (0.1, True), (0.03, True)] * 2


def test_levels_are_told_apart(world: World) -> None:
    levels = np.where(np.arange(len(world.triplets)) % 3 == 0, "class_border", "within_class").astype(object)
    table = cross_validate(plain(world, levels=levels), folds=2, penalties=[0.03])
    fold_of = np.random.default_rng(0).permutation(48) % 2
    rows = np.concatenate([np.flatnonzero((fold_of == fold)[world.triplets].sum(1) > 1) for fold in range(2)])
    for row in table:
        border = (levels[rows] == "class_border").mean()
        told = row["levels"]
        assert set(told) == {"class_border", "within_class"}
        whole = border * told["class_border"] + (1 - border) * told["within_class"]
        assert whole == pytest.approx(row["agreement"])


def test_judged_triplets_are_few_enough(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_JUDGED", 100)
    table = cross_validate(plain(world), folds=2, penalties=[0.03])
    assert 100 <= table[0]["n"] <= 200


# --- few-shot accuracy on classes that a fold has not seen


def snapshots(world: World, each: int = 8, more: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of every object, and of a few objects that nobody was asked about."""
    rng = np.random.default_rng(3)
    strangers = rng.normal(size=(more, world.X.shape[1]))
    shows = np.repeat(np.arange(len(world.X) + more), each)
    return np.concatenate([world.X, strangers])[shows] + 0.7 * rng.normal(size=(len(shows), world.X.shape[1])), shows


class Tasks:
    """Which classes each fold's tasks use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folds: list[tuple[np.ndarray, set[int]]] = []
        real = module._tasks

        def tasks(data: Answered, training: np.ndarray, seed: int) -> Any:
            found = real(data, training, seed)
            self.folds += [(training, {int(shows) for shows in data.shows[rows]}) for rows, _ in found]
            return found

        monkeypatch.setattr(module, "_tasks", tasks)


def test_classes_are_those_that_no_fit_has_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch)
    pictures, shows = snapshots(world)
    table = cross_validate(plain(world, pictures=pictures, shows=shows), folds=3, penalties=[0.03])
    assert len(tasks.folds) == 3
    for training, classes in tasks.folds:
        assert classes == {*np.flatnonzero(~training), *range(48, 53)}  # held out, or never judged
    assert table[0]["fewshot_loss"] == 0.0
    assert table[0]["fewshot_loss_error"] == 0.0
    assert 1 / 21 < table[0]["fewshot"] < 1.0
    assert table[1]["fewshot_loss"] == pytest.approx(100 * (table[0]["fewshot"] - table[1]["fewshot"]))
    assert table[1]["fewshot_loss_error"] > 0


def test_pictures_of_what_was_never_judged_suffice(world: World) -> None:
    pictures, shows = snapshots(world)
    never = shows >= 48
    data = plain(world, pictures=pictures[never], shows=shows[never])
    assert "fewshot" in cross_validate(data, folds=2, penalties=[0.1])[1]
    one = shows == 50
    data = plain(world, pictures=pictures[one], shows=shows[one])
    assert "fewshot" not in cross_validate(data, folds=2, penalties=[0.1])[1]  # of one class nothing can be learned


def test_many_classes_and_pictures_are_drawn_from(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLASSES", 6)
    monkeypatch.setattr(module, "_IMAGES", 7)
    tasks = Tasks(monkeypatch)
    pictures, shows = snapshots(world)
    cross_validate(plain(world, pictures=pictures, shows=shows), folds=2, penalties=[0.1])
    assert all(len(classes) == 6 for _, classes in tasks.folds)
    assert tasks.folds[0][1] != tasks.folds[1][1]


def test_a_map_onto_one_dimension_loses_points(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(self: AffineProblem, penalty: float, start: Solution | None = None) -> Solution:
        core = torch.zeros(8, 8, dtype=torch.float64)
        core[0, 0] = penalty
        return Solution(core, torch.zeros(8, dtype=torch.float64), 0.0, 1.0)

    monkeypatch.setattr(module.AffineProblem, "solve", flat)
    pictures, shows = snapshots(world)
    table = cross_validate(plain(world, pictures=pictures, shows=shows), folds=2, penalties=[1.0])
    assert table[1]["fewshot_loss"] > 10
    assert chosen(table) == 0

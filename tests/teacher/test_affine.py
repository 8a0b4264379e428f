from __future__ import annotations

import numpy as np
import pytest
import torch

from likemind.choice import PAIRS
from likemind.errors import LikemindError
from likemind.teacher.affine import AffineProblem, Solution, standardise
from likemind.teacher.teacher import IDENTITY, Teacher

from .conftest import World


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def dots(Z: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    return np.stack([(Z[triplets[:, a]] * Z[triplets[:, b]]).sum(1) for a, b in PAIRS], axis=1)


@pytest.mark.parametrize("mix", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(("m", "d"), [(30, 6), (12, 20)], ids=["full", "span"])
def test_a_mixed_map_has_the_mixed_similarities(m: int, d: int, mix: float) -> None:
    """With a shift, within the objects' span and outside of it: every triplet of any rows chooses alike."""
    small = World(items=m, width=d, n=400)
    problem = AffineProblem(small.X, small.triplets, small.answers)
    found = problem.solve(0.01)
    rng = np.random.default_rng(1)
    found = Solution(found.core, found.shift + torch.from_numpy(rng.normal(size=len(found.shift))), found.outside, 0.0)
    inside = problem.standard(small.X)
    anywhere = problem.standard(rng.normal(size=(40, d)))
    for X, triplets in ((inside, small.triplets), (anywhere, rng.permuted(np.tile(range(40), (9, 1)), axis=1)[:, :3])):
        maps = [problem.full(one) for one in (found, found.mixed(mix))]
        own, mapped, mixed = (dots(Z, triplets) for Z in (X, *(X @ W.astype(float) + b for W, b in maps)))
        np.testing.assert_allclose(softmax(mixed), softmax((1 - mix) * own + mix * mapped), atol=2e-5)
        assert np.abs(softmax(mixed) - softmax(mapped)).max() > 1e-2


def test_all_of_the_map_is_the_map_itself() -> None:
    small = World(items=20, n=200)
    found = AffineProblem(small.X, small.triplets, small.answers).solve(0.03)
    assert found.mixed(1.0) is found


def test_a_mixed_identity_is_the_identity() -> None:
    small = World(items=20, n=200)
    found = AffineProblem(small.X, small.triplets, small.answers).identity().mixed(0.4)
    torch.testing.assert_close(found.core, torch.eye(8, dtype=torch.float64))
    assert found.outside == pytest.approx(1.0)
    assert not found.shift.any()


@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_the_fit_in_the_span_is_the_fit_in_all_dimensions(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the span leaves out has the scale of what it holds: the same similarities as without it."""
    small = World(items=12, width=20, n=300, seed=2)
    within = AffineProblem(small.X, small.triplets, small.answers)
    a = within.solve(penalty)
    monkeypatch.setattr("likemind.teacher.affine._span", lambda _: None)
    whole = AffineProblem(small.X, small.triplets, small.answers)
    b = whole.solve(penalty)
    assert len(a.core) == 11 < len(b.core) == 20
    assert a.loss == pytest.approx(b.loss, abs=3e-2)
    X = whole.standard(small.X)
    one, other = (dots(X @ W + bias, small.triplets) for W, bias in (within.full(a), whole.full(b)))
    assert np.abs(softmax(one) - softmax(other)).mean() < 0.03


def test_joined_blocks_get_the_same_spread() -> None:
    small = World(items=40, width=6, n=600)
    X = small.X * np.array([1, 1, 1, 1, 1000, 1000]) + np.array([0, 0, 0, 0, 7, 7])
    standard = standardise(X, small.triplets, small.answers, np.ones(600), [4, 2])(X)
    one, other = standard[:, :4].std(), standard[:, 4:].std()
    assert one == pytest.approx(other)
    together = standardise(X, small.triplets, small.answers, np.ones(600), [6])
    assert len(set(together.scale)) == 1
    problem = AffineProblem(X, small.triplets, small.answers, blocks=[4, 2])
    assert problem.solve(0.03).loss < AffineProblem(X, small.triplets, small.answers).solve(0.03).loss - 0.02


def test_a_constant_block_is_named() -> None:
    small = World(items=40, width=6, n=600)
    X = small.X * np.array([1, 1, 1, 1, 0, 0]) + 3.0
    with pytest.raises(LikemindError, match="features of store 2 are constant over the items"):
        AffineProblem(X, small.triplets, small.answers, blocks=[4, 2])


def neighbours(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: np.ndarray = cosines.argsort(axis=1)[:, -5:]
    return nearest


def test_other_images_keep_their_neighbours_with_a_local_weight() -> None:
    small = World(items=40, width=8, n=1500)
    others = np.random.default_rng(5).normal(size=(60, 8))
    kept, losses = [], []
    for weight in (0.0, 0.25, 0.9):
        teacher = Teacher(0.003, local_weight=weight)
        teacher.fit(small.X, small.triplets, small.answers, others=others)
        before, after = neighbours((others - teacher.mean_) / teacher.scale_), neighbours(teacher.transform(others))
        kept.append(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(before, after, strict=True)]))
        losses.append(teacher.loss_)
    assert kept[0] < kept[1] < kept[2]
    assert kept[2] > kept[0] + 0.2
    assert losses == sorted(losses)  # type: ignore[type-var]
    assert losses[2] > losses[0] + 0.01  # type: ignore[operator]


def test_a_local_weight_needs_others() -> None:
    small = World(items=20, n=200)
    for others in (None, small.X[:2]):
        with pytest.raises(LikemindError, match="local_weight needs the features of three other images"):
            Teacher(0.1, local_weight=0.2).fit(small.X, small.triplets, small.answers, others=others)


@pytest.mark.parametrize("wrong", [{"penalty": -1.0}, {"penalty": float("nan")}, {"mix": 0.0}, {"local_weight": 1.0}])
def test_parameters_out_of_range(wrong: dict[str, float]) -> None:
    small = World(items=20, n=200)
    with pytest.raises(LikemindError, match="penalty must be at least 0, mix in"):
        Teacher(**wrong).fit(small.X, small.triplets, small.answers)  # type: ignore[arg-type]


def test_float32_finds_what_float64_finds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Teacher(0.03).fit(world.X, world.triplets, world.answers)
    monkeypatch.setattr("likemind.teacher.affine._WIDE", 0)
    narrow = Teacher(0.03).fit(world.X, world.triplets, world.answers)
    assert narrow.loss_ == pytest.approx(wide.loss_, abs=1e-3)
    assert wide.loss_ is not None
    assert wide.loss_ < float(Teacher(IDENTITY).fit(world.X, world.triplets, world.answers).loss_ or 0) - 0.1

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from likemind.choice import PAIRS, fit_temperature, pair_similarities
from likemind.errors import LikemindError
from likemind.teacher.affine import AffineProblem
from likemind.teacher.teacher import IDENTITY, Teacher

from .conftest import World


def close(a: Teacher, b: Teacher, X: np.ndarray) -> float:
    """How far apart the two teachers' Gram matrices lie, up to what a softmax cannot see, as a share of their size."""
    grams = []
    for teacher in (a, b):
        Z = teacher.transform(X).astype(float)
        gram = Z @ Z.T
        grams.append(gram - gram[~np.eye(len(gram), dtype=bool)].mean())
    off = ~np.eye(len(X), dtype=bool)
    return float(np.abs(grams[0] - grams[1])[off].max() / np.abs(grams[0])[off].max())


def objective(teacher: Teacher, X: np.ndarray, triplets: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    """The documented objective at a teacher's map, from its definition."""
    log_p = torch.log_softmax(teacher.similarities(X, triplets), dim=1).numpy()
    W = teacher.weights_.astype(float)
    off = W - np.trace(W) / len(W) * np.eye(len(W))
    return float(
        -(targets * log_p).sum(1).mean() + penalty * ((off**2).sum() + (teacher.bias_.astype(float) ** 2).sum())
    )


def dense(teacher: Teacher, X: np.ndarray, triplets: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    """The least value of the same objective over a full (W, b), found with autograd and no reduction."""
    d = X.shape[1]
    rows = torch.from_numpy((X - teacher.mean_) / teacher.scale_)
    p, eye = torch.from_numpy(targets), torch.eye(d, dtype=torch.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(flat).requires_grad_()
        W, b = leaf[: d * d].view(d, d), leaf[d * d :]
        Z = rows @ W + b
        s = torch.stack([(Z[triplets[:, i]] * Z[triplets[:, j]]).sum(1) for i, j in PAIRS], dim=1)
        off = W - W.trace() / d * eye
        total = -(p * s.log_softmax(1)).sum(1).mean() + penalty * ((off * off).sum() + (b * b).sum())
        (gradient,) = torch.autograd.grad(total, leaf)
        return total.item(), gradient.numpy()

    start = np.concatenate([np.eye(d).ravel(), np.zeros(d)])
    options = {"maxiter": 3000, "maxfun": 9000, "ftol": 1e-13, "gtol": 1e-9}
    return float(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).fun)


@pytest.mark.parametrize(("m", "d"), [(10, 24), (20, 6)])
@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_the_fit_in_the_span_is_the_full_fit(m: int, d: int, penalty: float) -> None:
    small = World(items=m, width=d, n=150, seed=3)
    teacher = Teacher(penalty).fit(small.X, small.triplets, small.p)
    found = objective(teacher, small.X, small.triplets, small.p, penalty)
    best = dense(teacher, small.X, small.triplets, small.p, penalty)
    start = objective(
        Teacher(IDENTITY).fit(small.X, small.triplets, small.p), small.X, small.triplets, small.p, penalty
    )
    assert best - 1e-6 <= found <= best + 0.01 * (start - best)
    assert start - best > 0.02


def test_the_loss_that_it_tells_is_the_one_it_has(world: World) -> None:
    teacher = Teacher(0.01).fit(world.X, world.triplets, world.answers)
    log_p = torch.log_softmax(teacher.similarities(world.X, world.triplets), dim=1).numpy()
    assert teacher.loss_ == pytest.approx(-(world.answers * log_p).sum(1).mean(), abs=1e-5)


def test_a_large_penalty_gives_the_scaled_identity(world: World) -> None:
    teacher = Teacher(1e6).fit(world.X, world.triplets, world.answers)
    scale = teacher.weights_.diagonal().mean()
    np.testing.assert_allclose(teacher.weights_, scale * np.eye(8), atol=1e-4)
    np.testing.assert_allclose(teacher.bias_, 0, atol=1e-4)
    assert scale == pytest.approx(1.0, abs=0.02)  # the temperature was the best before
    assert close(teacher, Teacher(IDENTITY).fit(world.X, world.triplets, world.answers), world.X) < 0.05


def test_outside_of_the_objects_span_it_is_the_scaled_identity() -> None:
    small = World(items=6, width=20, n=80)
    teacher = Teacher(0.01).fit(small.X, small.triplets, small.p)
    span = np.linalg.svd(small.X - small.X.mean(0), full_matrices=True)[2]
    outside = span[5:]
    W = teacher.weights_.astype(float)
    moved = outside @ W
    scale = float(np.trace(span[:5] @ W @ span[:5].T)) / 5
    np.testing.assert_allclose(moved, scale * outside, atol=1e-5)
    assert np.abs(span[:5] @ W - scale * span[:5]).max() > 5e-3


def test_what_people_see_is_found_on_objects_never_judged() -> None:
    known = World(items=70, n=6000, seed=1)
    seen = (known.triplets < 50).all(1)
    unseen = (known.triplets >= 50).any(1)
    teacher = Teacher(0.01).fit(known.X[:50], known.triplets[seen], known.answers[seen])
    plain = Teacher(IDENTITY).fit(known.X[:50], known.triplets[seen], known.answers[seen])
    ours, before = (t.score(known.X, known.triplets[unseen], known.p[unseen]) for t in (teacher, plain))
    ceiling = known.p[unseen].max(1).mean()
    assert ours > before + 0.5 * (ceiling - before)
    norms = np.linalg.norm(teacher.weights_, axis=1)
    assert norms[:2].min() > 2 * norms[2:].max()


def test_order_of_items_and_of_positions_does_not_matter(world: World) -> None:
    rng = np.random.default_rng(9)
    first = Teacher(0.03).fit(world.X, world.triplets, world.answers)
    order = rng.permutation(len(world.X))
    place = np.argsort(order)
    second = Teacher(0.03).fit(world.X[order], place[world.triplets], world.answers)
    assert close(first, second, world.X) < 0.03
    swapped = world.triplets[:, [2, 0, 1]]  # pairs 01, 02, 12 are now 20, 21, 01: 02, 12, 01
    third = Teacher(0.03).fit(world.X, swapped, world.answers[:, [1, 2, 0]])
    assert close(first, third, world.X) < 0.03
    wrong = Teacher(0.03).fit(world.X, swapped, world.answers)
    assert close(first, wrong, world.X) > 0.3


def test_an_answer_given_three_times_weighs_three(world: World) -> None:
    repeats = np.where(np.arange(len(world.triplets)) % 2 == 0, 1, 5)
    rows = np.repeat(np.arange(len(world.triplets)), repeats)
    many = Teacher(0.03).fit(world.X, world.triplets[rows], world.answers[rows])
    weighted = Teacher(0.03).fit(world.X, world.triplets, world.answers, repeats)
    np.testing.assert_allclose(weighted.scale_, many.scale_, rtol=1e-3)
    assert weighted.loss_ == pytest.approx(many.loss_, abs=1e-4)
    assert close(many, weighted, world.X) < 0.02
    assert close(many, Teacher(0.03).fit(world.X, world.triplets, world.answers), world.X) > 0.02


def test_scale_makes_the_identity_the_best_scaled_identity(world: World) -> None:
    teacher = Teacher(IDENTITY).fit(world.X, world.triplets, world.answers)
    best = fit_temperature(teacher.similarities(world.X, world.triplets), torch.from_numpy(world.answers))
    assert best == pytest.approx(1.0, abs=1e-2)
    stretched = Teacher(IDENTITY).fit(7 * world.X + 3, world.triplets, world.answers)
    np.testing.assert_allclose(stretched.transform(7 * world.X + 3), teacher.transform(world.X), atol=1e-3)


def test_calibrate_divides_the_similarities(world: World) -> None:
    teacher = Teacher(0.01).fit(world.X, world.triplets, world.answers)
    before = teacher.similarities(world.X, world.triplets)
    teacher.calibrate(2.5)
    torch.testing.assert_close(teacher.similarities(world.X, world.triplets), before / 2.5, atol=1e-4, rtol=1e-4)


def test_the_control_is_the_features_centred_and_scaled(world: World) -> None:
    teacher = Teacher(0.01).fit(world.X, world.triplets, world.answers)
    teacher.backbone_ = "b"
    control = teacher.untransformed()
    np.testing.assert_allclose(control.transform(world.X), (world.X - world.X.mean(0)) / teacher.scale_, atol=1e-5)
    assert control.is_identity
    assert control.backbone_ == "b"
    assert not teacher.is_identity
    assert control.key != teacher.key


def test_ties_score_zero(world: World) -> None:
    teacher = Teacher(IDENTITY).fit(world.X, world.triplets, world.answers)
    assert teacher.score(np.ones_like(world.X), world.triplets, world.p) == 0.0
    expected = world.p[np.arange(len(world.p)), teacher.similarities(world.X, world.triplets).argmax(1).numpy()]
    assert teacher.score(world.X, world.triplets, world.p) == pytest.approx(expected.mean())
    raw = pair_similarities(torch.from_numpy(teacher.transform(world.X)).double(), torch.from_numpy(world.triplets))
    torch.testing.assert_close(teacher.similarities(world.X, world.triplets), raw)


@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_popularity_is_not_memorised(penalty: float) -> None:
    """People who avoid some objects, whatever they are shown with, teach nothing about new objects."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 30))
    popular = rng.normal(size=60)
    triplets = np.stack([rng.choice(60, 3, replace=False) for _ in range(4000)])
    logits = -popular[triplets[:, ::-1]] * 1.5  # pair k leaves out position 2 − k
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    seen, unseen = (triplets < 40).all(1), (triplets >= 40).all(1)
    losses = {}
    for value in (penalty, IDENTITY):
        teacher = Teacher(value).fit(X[:40], triplets[seen], p[seen])
        log_p = torch.log_softmax(teacher.similarities(X, triplets[unseen]), 1).numpy()
        losses[value] = -(p[unseen] * log_p).sum(1).mean()
    assert losses[penalty] < losses[IDENTITY] + (0.05 if penalty == 0.1 else 0.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X: X * 0 + 4.2, "features are constant"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 5, np.nan, X), "row 5 of the features is not finite"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 2, np.inf, X), "row 2 of the features is not finite"),
    ],
)
def test_features_that_cannot_be_fitted(world: World, change: object, words: str) -> None:
    with pytest.raises(LikemindError, match=words):
        Teacher().fit(change(world.X), world.triplets, world.answers)  # type: ignore[operator]


def test_no_triplet_and_the_wrong_width(world: World) -> None:
    with pytest.raises(LikemindError, match="no triplet to fit"):
        Teacher().fit(world.X, world.triplets[:0], world.answers[:0])
    teacher = Teacher(IDENTITY).fit(world.X, world.triplets, world.answers)
    for wrong in (world.X[:, :7], world.X[0]):
        with pytest.raises(LikemindError, match="features of width 8, got"):
            teacher.transform(wrong)


def test_a_start_changes_the_way_and_not_the_goal(world: World) -> None:
    problem = AffineProblem(world.X, world.triplets, world.answers)
    cold = Teacher(0.03).fit(world.X, world.triplets, world.answers)
    warm = Teacher(0.03).take(problem, problem.solve(0.03, problem.solve(0.1)))
    assert warm.loss_ == pytest.approx(cold.loss_, abs=2e-3)
    assert close(warm, cold, world.X) < 0.05


def test_the_control_keeps_its_own_scale_when_the_map_is_calibrated(world: World) -> None:
    teacher = Teacher(0.1).fit(world.X, world.triplets, world.p)
    before = teacher.untransformed().transform(world.X)
    teacher.calibrate(3.0)
    np.testing.assert_array_equal(teacher.untransformed().transform(world.X), before)
    np.testing.assert_allclose(teacher.scale_, teacher.identity_scale_ * 3.0**0.5)

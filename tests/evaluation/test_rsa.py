from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from likemind.errors import LikemindError
from likemind.evaluation.rsa import Coefficient, Rated, RatedPairs, averaged, dissimilarities
from likemind.readers.ratings import RatingMatrix

SEEDS = st.integers(0, 2**32 - 1)


def rows_of(m: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


def people_of(m: int, seed: int = 0, *, ties: bool = False) -> np.ndarray:
    """Dissimilarities between points, or so coarse that many are equal."""
    places = np.random.default_rng([seed, 99]).normal(size=(m, 4))
    apart: np.ndarray = np.linalg.norm(places[:, None] - places, axis=2)
    return np.round(apart) if ties else apart


def ratings_of(matrix: np.ndarray) -> RatingMatrix:
    return RatingMatrix([f"i{k}" for k in range(len(matrix))], matrix)


def slow_cosines(rows: np.ndarray) -> list[list[float]]:
    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        length = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
        return float(sum(a * b for a, b in zip(x, y, strict=True)) / length)

    return [[1 - cosine(x, y) for y in rows] for x in rows]


def above_the_diagonal(matrix: np.ndarray) -> list[float]:
    return [float(matrix[a, b]) for a in range(len(matrix)) for b in range(a + 1, len(matrix))]


def rsa(rows: np.ndarray, ratings: RatingMatrix, coefficient: Coefficient = "spearman") -> Rated:
    return RatedPairs([ratings], coefficient).correlate(rows)


def value(rows: np.ndarray, matrix: np.ndarray) -> float:
    return rsa(rows, ratings_of(matrix)).value


# --- the value


def test_dissimilarities_are_one_minus_cosine() -> None:
    rows = rows_of(7) * np.arange(1, 8)[:, None]
    np.testing.assert_allclose(dissimilarities(rows), slow_cosines(rows), atol=1e-7)
    np.testing.assert_array_equal(dissimilarities(np.zeros((3, 2))), 1.0)


@given(st.integers(4, 25), SEEDS, st.booleans())
def test_the_value_is_scipys_over_the_upper_triangle(m: int, seed: int, ties: bool) -> None:
    rows, people = rows_of(m, seed=seed), people_of(m, seed, ties=ties)
    wanted = spearmanr(above_the_diagonal(dissimilarities(rows)), above_the_diagonal(people)).statistic
    found = rsa(rows, ratings_of(people))
    assert found.value == pytest.approx(0.0 if np.isnan(wanted) else wanted, abs=1e-9)
    assert found.n == m


@given(st.integers(4, 15), SEEDS)
def test_items_may_change_places_together(m: int, seed: int) -> None:
    rows, people = rows_of(m, seed=seed), people_of(m, seed)
    order = np.random.default_rng(seed).permutation(m)
    assert value(rows[order], people[np.ix_(order, order)]) == pytest.approx(value(rows, people), abs=1e-9)


@given(st.integers(4, 15), SEEDS, st.floats(1e-3, 1e3))
def test_neither_a_turn_nor_a_row_s_length_changes_anything(m: int, seed: int, scale: float) -> None:
    rows, people = rows_of(m, seed=seed), people_of(m, seed)
    turn = np.linalg.qr(rows_of(6, seed=seed + 1))[0]
    lengths = np.random.default_rng(seed).uniform(0.1, 10, size=(m, 1))
    assert value(rows @ turn * scale, people) == pytest.approx(value(rows, people), abs=1e-9)
    assert value(rows * lengths, people) == pytest.approx(value(rows, people), abs=1e-9)
    assert value(np.pad(rows, ((0, 0), (0, 3))), people) == pytest.approx(value(rows, people), abs=1e-9)


@given(
    st.integers(4, 15), SEEDS, st.sampled_from([lambda x: x**3, np.sqrt, lambda x: np.expm1(2 * x), lambda x: x / 7])
)
def test_only_the_order_of_ratings_counts(m: int, seed: int, grow: np.ufunc) -> None:
    rows, people = rows_of(m, seed=seed), people_of(m, seed, ties=seed % 2 == 0)
    assert value(rows, grow(people)) == pytest.approx(value(rows, people), abs=1e-9)


@given(st.integers(4, 15), SEEDS)
def test_who_agrees_with_people_scores_one_and_who_turns_them_round_minus_one(m: int, seed: int) -> None:
    rows = rows_of(m, seed=seed)
    own = dissimilarities(rows)
    assert value(rows, np.expm1(own - np.diag(np.diag(own)))) == pytest.approx(1)
    other = 5 - own
    np.fill_diagonal(other, 0)
    assert value(rows, other) == pytest.approx(-1)


@given(st.integers(3, 15), SEEDS, st.integers(1, 40))
def test_an_embedding_that_tells_nothing_apart_scores_nothing(m: int, seed: int, width: int) -> None:
    people = people_of(m, seed)
    one = rows_of(1, width, seed)
    lengths = np.random.default_rng(seed).uniform(0.3, 3, size=(m, 1))
    for rows in (np.repeat(one, m, axis=0), one * lengths, (one * lengths).astype(np.float32), np.zeros((m, width))):
        found = rsa(rows, ratings_of(people))
        assert found.value == 0
        assert found.interval == (0, 0)
    assert value(rows_of(m, 6, seed), np.zeros((m, m))) == 0


# --- the interval


@pytest.mark.parametrize("coefficient", ["spearman", "pearson"])
@pytest.mark.parametrize("ties", [False, True])
def test_influences_are_what_leaving_a_pair_out_does(coefficient: Coefficient, ties: bool) -> None:
    """To first order: −(n − 1) times the change is the influence of a pair, times n."""
    model, people = dissimilarities(rows_of(20)), people_of(20, ties=ties)
    found = RatedPairs([ratings_of(people)], coefficient).correlate_matrix(model)
    mine, theirs = np.array(above_the_diagonal(model)), np.array(above_the_diagonal(people))
    correlate = {"spearman": spearmanr, "pearson": pearsonr}[coefficient]
    n = len(mine)
    left = np.array([correlate(np.delete(mine, k), np.delete(theirs, k)).statistic for k in range(n)])
    wanted = (n - 1) * (correlate(mine, theirs).statistic - left)
    np.testing.assert_allclose(found.influence[0] * n, wanted, atol=0.02, rtol=0.05)
    assert np.corrcoef(found.influence[0], wanted)[0, 1] > 0.999
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_the_interval_s_error_is_the_written_out_sum() -> None:
    found = RatedPairs([ratings_of(people_of(9))], "spearman").correlate(rows_of(9))
    pairs = [(a, b) for a in range(9) for b in range(a + 1, 9)]
    psi = dict(zip(pairs, found.influence[0].tolist(), strict=True))
    by_item = sum(sum(psi[pair] for pair in pairs if k in pair) ** 2 for k in range(9))
    total = sum(psi[s] * psi[t] for s in pairs for t in pairs if set(s) & set(t)) + ((9 / 7) ** 2 - 1) * by_item
    alone = sum(value**2 for value in psi.values())
    assert found.error == (pytest.approx(math.sqrt(max(total, alone))), 8)


def test_the_interval_of_a_model_against_itself_is_nothing() -> None:
    people = RatedPairs([ratings_of(people_of(8))], "spearman")
    same = people.correlate(rows_of(8, seed=1)).minus(people.correlate(rows_of(8, seed=1) * 3))
    assert (same.value, *same.interval, same.p_value) == (0.0, 0.0, 0.0, 1.0)


# --- Pearson's coefficient, several people, ceilings


@given(st.integers(4, 20), SEEDS)
def test_pearsons_coefficient_is_scipys(m: int, seed: int) -> None:
    rows, people = rows_of(m, seed=seed), people_of(m, seed)
    wanted = pearsonr(above_the_diagonal(dissimilarities(rows)), above_the_diagonal(people)).statistic
    assert rsa(rows, ratings_of(people), "pearson").value == pytest.approx(wanted, abs=1e-9)


def crowd(count: int, m: int = 12, noise: float = 1.0) -> list[RatingMatrix]:
    """People who see the same places, each with noise of their own."""
    found = []
    for person in range(count):
        own = people_of(m, 1) + noise * np.random.default_rng([person, 5]).random((m, m))
        own = (own + own.T) / 2
        np.fill_diagonal(own, 0)
        found.append(ratings_of(own))
    return found


@pytest.mark.parametrize("coefficient", ["spearman", "pearson"])
def test_several_people_and_their_ceilings_are_written_out(coefficient: Coefficient) -> None:
    people = crowd(6)
    rows = rows_of(12)
    correlate = {"spearman": spearmanr, "pearson": pearsonr}[coefficient]
    theirs = [above_the_diagonal(one.dissimilarities) for one in people]
    mine = above_the_diagonal(dissimilarities(rows))
    rated = RatedPairs(people, coefficient)
    found = rated.correlate(rows)
    assert found.value == pytest.approx(np.mean([correlate(mine, one).statistic for one in theirs]))
    like = [rankdata(one) if coefficient == "spearman" else np.array(one) for one in theirs]
    even = [(one - one.mean()) / one.std() for one in like]
    lower = [pearsonr(even[k], sum(even[:k] + even[k + 1 :])).statistic for k in range(6)]
    upper = [pearsonr(one, sum(even)).statistic for one in even]
    assert rated.ceiling == pytest.approx((np.mean(lower), np.mean(upper)))
    assert np.mean(lower) < np.mean(upper)
    assert RatedPairs(people[:1], coefficient).ceiling is None


def test_who_rates_as_people_do_in_the_mean_lies_between_the_ceilings() -> None:
    rated = RatedPairs(crowd(8), "spearman")
    low, high = rated.ceiling or (0.0, 0.0)
    assert low - 0.01 < rated.correlate_matrix(people_of(12, 1)).value < high + 0.01
    assert rated.correlate_matrix(people_of(12, 77)).value < low


def test_the_interval_of_several_people_generalises_to_other_people_too() -> None:
    people = crowd(6, noise=4.0)
    found = RatedPairs(people, "spearman").correlate(rows_of(12))
    assert found.influence.shape == (6, 66)
    assert found.error[1] == 5
    alike = RatedPairs([people[0]] * 6, "spearman").correlate(rows_of(12))
    alone = RatedPairs(people[:1], "spearman").correlate(rows_of(12))
    assert alike.value == pytest.approx(alone.value)
    assert alike.error[0] == pytest.approx(alone.error[0], rel=0.25)


def test_people_must_rate_the_same() -> None:
    two = RatingMatrix(["a", "b", "c"], people_of(3)), RatingMatrix(["a", "c", "b"], people_of(3))
    with pytest.raises(LikemindError, match="about different items"):
        RatedPairs(two, "spearman")


def study(size: int, seed: int, people: int = 1) -> tuple[np.ndarray, list[RatingMatrix]]:
    """Items of a world, seen by a model and by people who each weigh its features in their own way, with noise."""
    rng = np.random.default_rng([seed, 8])
    shared = rng.normal(size=(size, 5))
    mine, theirs = (shared + 0.8 * rng.normal(size=(size, 5)) for _ in range(2))
    found = []
    for _ in range(people):
        seen = theirs * np.exp((people > 1) * 0.5 * rng.normal(size=5))
        apart = np.linalg.norm(seen[:, None] - seen, axis=2) + (people > 1) * rng.normal(size=(size, size))
        np.fill_diagonal(apart, 0)
        found.append(ratings_of((apart + apart.T) / 2))
    return mine, found


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", ["spearman", "pearson"])
@pytest.mark.parametrize(
    ("m", "people", "low", "high"),
    [(48, 1, 0.93, 0.97), (12, 1, 0.88, 0.97), (40, 12, 0.93, 0.97)],
    ids=["many", "few", "people"],
)
def test_intervals_hold_the_truth_as_often_as_the_pages_say(
    m: int, people: int, low: float, high: float, coefficient: Coefficient
) -> None:
    """The truth is that of very many items, or of very many people."""
    many = [(600, 10**6 + k, 8 if people > 1 else 1) for k in range(30)]
    truth = float(np.mean([_value(one, coefficient) for one in many]))
    inside = 0
    for seed in range(2000):
        rows, rated = study(m, seed, people)
        bounds = RatedPairs(rated, coefficient).correlate(rows).interval
        inside += bounds[0] <= truth <= bounds[1]
    assert low <= inside / 2000 <= high


def _value(one: tuple[int, int, int], coefficient: Coefficient) -> float:
    rows, rated = study(*one)
    return RatedPairs(rated, coefficient).correlate(rows).value


# --- names


class Items:
    """Stands in for an evaluation set: names and the rows of their items."""

    def __init__(self, **rows: list[int]) -> None:
        self.rows = rows

    def rows_of(self, names: list[str]) -> dict[str, list[int]]:
        return {name: self.rows[name] for name in names if name in self.rows}


def test_a_name_is_the_mean_of_its_items() -> None:
    rows = rows_of(6).astype(np.float32)
    found = averaged(rows, Items(ant=[0, 2, 5], bee=[4]), ["bee", "unicorn", "ant"])  # type: ignore[arg-type]
    assert found.dtype == np.float32
    assert np.isnan(found[1]).all()
    for row, members in ((found[0], [4]), (found[2], [0, 2, 5])):
        mean = [sum(float(rows[k, column]) for k in members) / len(members) for column in range(6)]
        length = math.sqrt(sum(x * x for x in mean))
        np.testing.assert_allclose(row, [x / length for x in mean], atol=1e-6)

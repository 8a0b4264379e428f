"""People's own answers and ratings: a model of people at their ceiling, and every kind of file through ``evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.evaluation.odd_one_out import Trials, by_level, picked
from likemind.evaluation.rsa import RatedPairs
from likemind.evaluation.suite import evaluate
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import Triplets

from .conftest import saved_backbone
from .test_recorded import changed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def things(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue("shared_data") / "things"
    return found


def answered(things: Path) -> Trials:
    recorded = np.load(things / "human_triplets_2171.npy").astype(np.int64)
    ids = [str(row) for row in range(1854)]
    return Trials.of(Triplets(ids, recorded, choice=np.full(len(recorded), 2)), ids, "here")


def test_vice_answers_as_people_do_and_noise_does_not(things: Path) -> None:
    """The published ceiling of THINGS is .673; VICE matches 66.4 % of these answers."""
    trials = answered(things)
    found = by_level(picked(np.load(things / "vice_embedding.npy"), trials), trials, 0, trials.answers)["all"]
    assert found.value == pytest.approx(0.6637, abs=0.0005)
    low, high = found.interval
    assert low < 0.673 < high
    noise = np.random.default_rng(0).normal(size=(1854, 42))
    low, high = by_level(picked(noise, trials), trials, 0, trials.answers)["all"].interval
    assert low < 1 / 3 < high
    assert by_level(picked(np.ones((1854, 2)), trials), trials, 0, trials.answers)["all"].value == 0.0


def test_vice_rates_as_people_do(things: Path) -> None:
    rows, human = np.load(things / "rdm48_rows.npy"), np.load(things / "rdm48.npy")
    rated = RatedPairs([RatingMatrix([str(row) for row in rows], human)], "spearman")
    found = rated.correlate(np.load(things / "vice_embedding.npy")[rows].astype(np.float64))
    low, high = found.interval
    assert found.n == 48
    assert 0.6 < low < found.value < high < 1
    noise = rated.correlate(np.random.default_rng(0).normal(size=(48, 10))).interval
    assert noise[0] < 0 < noise[1]


def with_files(data: EvaluationSet, folder: Path) -> EvaluationSet:
    """The toys, rated by three people, and compared two and two with a third."""
    about = changed(data, folder, ratings={"crowd": [f"{k}.parquet" for k in range(3)]}, twoafc={"nights": "n.csv"})
    names = [f"category-{k}" for k in range(8)]
    places = np.random.default_rng(0).normal(size=(8, 3))
    for person in range(3):
        seen = places + 0.3 * np.random.default_rng([person, 1]).normal(size=places.shape)
        apart = np.linalg.norm(seen[:, None] - seen, axis=2)
        RatingMatrix(names, apart, "human").to_parquet(about.path / f"{person}.parquet")
    lines = ["ref_path,left_path,right_path,left_vote,right_vote"]
    lines += [f"{k}-0.png,{k}-{j}.png,{(k + 1) % 8}-{j}.png,3,1" for k in range(8) for j in range(1, 5)]
    (about.path / "n.csv").write_text("\n".join(lines))
    return about


def test_ratings_of_several_people_and_two_alternatives_are_scored(data: EvaluationSet, tmp_path: Path) -> None:
    about = with_files(data, tmp_path / "data")
    models = {"one": saved_backbone(tmp_path / "one"), "two": saved_backbone(tmp_path / "two", seed=4)}
    results = evaluate(models, data=about, out=tmp_path / "r", suite="human")
    for name in models:
        for coefficient in ("spearman", "pearson"):
            score = results.score(name, f"crowd/inside/rsa.{coefficient}@backbone")
            assert score.ceiling is not None
            assert score.ceiling_low is not None
            assert 0.5 < score.ceiling_low < score.ceiling < 1
            assert (score.n, score.source) == (8, "human")
        score = results.score(name, "nights/inside/twoafc@backbone")
        assert (score.n, score.chance, score.ceiling) == (32, 0.5, 0.75)
        assert 0.25 <= score.value <= 0.75
        assert score.source == "human"
    assert results.comparison("two", "one", "nights/inside/twoafc@backbone").n == 32
    key = about.key
    (about.path / "2.parquet").write_bytes((about.path / "1.parquet").read_bytes())
    assert EvaluationSet.load(about.path).key != key
    turned = RatingMatrix([f"category-{7 - k}" for k in range(8)], np.ones((8, 8)) - np.eye(8))
    turned.to_parquet(about.path / "2.parquet")
    with pytest.raises(LikemindError, match="the people of 'crowd' rated different items"):
        EvaluationSet.load(about.path).ratings("crowd")


def test_the_mean_of_several_people_is_what_figures_show(data: EvaluationSet, tmp_path: Path) -> None:
    about = with_files(data, tmp_path / "data")
    each = about.ratings_of_each("crowd")
    wanted = sum(one.dissimilarities for one in each) / 3
    np.testing.assert_allclose(about.ratings("crowd").dissimilarities, wanted)

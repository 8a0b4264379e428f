"""The parts: samples that nobody picked, bins, maps and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind.datasets.evaluation_set import EvaluationSet
from likemind.reporting import words
from likemind.reporting.evidence import MetricId, Place, load_evidence
from likemind.reporting.examples import gallery, kinds_of, neighbourhoods, proportion
from likemind.reporting.figures import equal_bins, slots_of
from likemind.reporting.maps import SIDE, fit, plane, turn
from likemind.reporting.thumbnails import Album

if TYPE_CHECKING:
    from .conftest import World


@given(st.tuples(*[st.integers(0, 500)] * 3), st.integers(3, 12))
def test_sample_is_in_proportion(numbers: tuple[int, int, int], places: int) -> None:
    counts = dict(zip(("after", "before", "neither"), numbers, strict=True))
    shares = proportion(counts, places)  # type: ignore[arg-type]
    assert sum(shares.values()) == min(places, sum(numbers))
    assert all(min(1, counts[kind]) <= share <= counts[kind] for kind, share in shares.items())


def test_sample_keeps_the_ratio() -> None:
    assert proportion({"after": 600, "before": 300, "neither": 100}, 10) == {"after": 6, "before": 3, "neither": 1}


def test_kinds_follow_the_majority_and_a_tie_is_none() -> None:
    people = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    before, after = np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])
    assert kinds_of(people, before, after) == ["after", "before", "neither", "neither"]


def test_gallery_counts_every_disagreement(world: World) -> None:
    evidence = load_evidence(world.write())
    shown = gallery(evidence, Album(evidence.data, pictures=False), "observers")
    assert shown is not None
    one = evidence.choices[Place("base", "backbone")]
    two = evidence.choices[Place("aligned", "shipped")]
    differ = (one.choice != two.choice) & (one.choice >= 0) & (two.choice >= 0)
    assert shown.total == differ.sum()
    assert shown.ties == 1
    majority = one.people.argmax(axis=1)
    assert shown.counts["after"] == (differ & (two.choice == majority)).sum()
    assert shown.counts["before"] == (differ & (one.choice == majority)).sum()
    assert len(shown.examples) == sum(shown.shown.values()) == 9


def test_gallery_tells_who_is_odd(world: World) -> None:
    evidence = load_evidence(world.write())
    shown = gallery(evidence, Album(evidence.data, pictures=False), "observers")
    assert shown is not None
    for example in shown.examples:
        people = evidence.choices[evidence.before].people[example.number]
        assert example.voices[0].shares == pytest.approx([people[2], people[1], people[0]])
        for voice in example.voices:
            assert sum(voice.shares) == pytest.approx(1)
            assert voice.pick == int(np.argmax(voice.shares))


def test_neighbours_are_the_nearest(world: World) -> None:
    evidence = load_evidence(world.write())
    (near,) = neighbourhoods(evidence, Album(evidence.data, pictures=False))
    rows = evidence.embeddings[Place("aligned", "shipped")]
    nearest = np.argsort(-(rows @ rows[0]))[1:7]
    assert [shown.item.id for shown in near.rings[1].neighbours] == [world.ids[row] for row in nearest]
    assert near.rings[1].same_group == sum(row % 2 == 0 for row in nearest)


def test_album_holds_each_picture_once_in_the_larger_size(world: World) -> None:
    world.write()
    album = Album(EvaluationSet.load(world.path / "results-data"), pictures=True)
    assert album.symbol("item-03", 40) == album.symbol("item-03", 112) == album.symbol("item-03", 40) == "t3"
    (only,) = album.thumbnails()
    assert only.size == 112
    assert only.uri.startswith("data:image/webp;base64,")


def test_bins_are_equal_and_in_order() -> None:
    x = np.random.default_rng(0).random(103)
    bins = equal_bins(x, 2 * x)
    assert sum(one.n for one in bins) == 103
    assert max(one.n for one in bins) - min(one.n for one in bins) <= 1
    assert [one.x for one in bins] == sorted(one.x for one in bins)
    assert all(one.low <= one.y <= one.high and one.y == pytest.approx(2 * one.x) for one in bins)
    assert len(equal_bins(np.array([1.0]), np.array([2.0]))) == 1


def test_turned_plane_keeps_distances_and_undoes_a_rotation() -> None:
    laid = np.random.default_rng(0).normal(size=(12, 2))
    rotation = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert turn(laid @ rotation, laid) == pytest.approx(laid)


def test_map_stays_in_its_square() -> None:
    laid = fit(np.random.default_rng(0).normal(size=(50, 2)) * [9, 1], margin=24)
    assert laid.min() >= 24 - 1e-9
    assert laid.max() <= SIDE - 24 + 1e-9


@pytest.mark.parametrize("rows", [4, 9, 30])
def test_plane_of_few_or_equal_rows(rows: int) -> None:
    embedding = np.eye(rows, 8, dtype=np.float32)
    assert np.isfinite(plane(embedding)).all()
    assert np.isfinite(plane(np.ones((rows, 8), np.float32))).all()
    assert (plane(embedding) == plane(embedding)).all()


def test_metric_ids_come_apart() -> None:
    assert MetricId.parse("toys/heldout/agreement.all@shipped") == ("toys", "heldout", "agreement.all", "shipped")
    assert MetricId.parse("odd@head") == ("odd", "", "", "head")


def test_differences_never_round_to_a_misleading_zero() -> None:
    how = words.measure("entropy_rt.spearman").fine_enough(-0.06, -0.001)
    assert how.interval(-0.06, -0.001) == "[−0.060, −0.001]"
    assert words.measure("agreement.all").signed(-0.00001) == "0.0"
    assert words.measure("agreement.all").signed(0.029) == "+2.9"


def test_colours_are_fixed_for_the_demo_and_free_for_others() -> None:
    assert slots_of(["aligned", "mine", "base"]) == {"aligned": 3, "base": 0, "mine": 1}
    assert len(slots_of([f"m{k}" for k in range(20)])) == 20


def test_credits_are_the_pictures_or_all() -> None:
    assert words.credits_of({"images": "A", "weights": "B"}) == ["A"]
    assert words.credits_of({"data": "A", "weights": "B"}) == ["A", "B"]

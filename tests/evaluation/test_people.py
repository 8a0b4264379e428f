from __future__ import annotations

from dataclasses import replace

import numpy as np

from likemind.evaluation.people import in_earnest
from likemind.triplets import Triplets

from .conftest import answers

IDS = [f"i{k}" for k in range(20)]


def study() -> Triplets:
    return answers(IDS, np.random.default_rng(0).normal(size=(20, 3)), 120, 4, people=6)


def changed(given: Triplets, person: str, *, position: int | None = None, seconds: float | None = None) -> Triplets:
    assert given.participant is not None
    assert given.choice is not None
    assert given.response_time is not None
    who = given.participant == person
    choice, time = given.choice.copy(), given.response_time.copy()
    if position is not None:
        choice[who] = position
    if seconds is not None:
        time[who] = seconds
    return replace(given, choice=choice, response_time=time)


def test_nobody_is_left_out_without_a_reason() -> None:
    given = study()
    left, report = in_earnest(given)
    assert left is given
    assert report == {}


def test_who_always_presses_one_position_is_left_out_and_named() -> None:
    given = changed(study(), "p3", position=1)
    left, report = in_earnest(given)
    count = int((given.participant == "p3").sum())  # type: ignore[union-attr]
    assert report["excluded"] == [
        {"participant": "p3", "answers": count, "why": "every answer at position 1 (counting from 0)"}
    ]
    assert len(left) == len(given) - count
    assert "p3" not in set(left.participant)  # type: ignore[arg-type]
    few = given.rows(np.flatnonzero(given.participant == "p3")[:9])
    rest = given.rows(np.flatnonzero(given.participant != "p3"))
    nine = replace(
        rest,
        indices=np.concatenate([rest.indices, few.indices]),
        **{name: np.concatenate([value, few.columns()[name]]) for name, value in rest.columns().items()},  # type: ignore[arg-type]
    )
    assert in_earnest(nine)[1] == {}, "nine answers say nothing of a person"


def test_a_convention_of_the_file_is_no_fault_of_people() -> None:
    given = study()
    last = replace(given, choice=np.full(len(given), 2))
    assert in_earnest(last)[1] == {}


def test_times_that_cannot_be() -> None:
    for seconds in (0.01, 500.0):
        given = changed(study(), "p0", seconds=seconds)
        left, report = in_earnest(given)
        count = int((given.participant == "p0").sum())  # type: ignore[union-attr]
        assert report["excluded"][0]["why"] == f"{count} of {count} response times outside 0.15 to 120 s"
        assert report["times_left_out"] == 0
        assert len(left) == len(given) - count
    given = study()
    assert given.response_time is not None
    times = given.response_time.copy()
    times[5] = 0.02
    left, report = in_earnest(replace(given, response_time=times))
    assert report == {"excluded": [], "times_left_out": 1}
    assert len(left) == len(given)
    assert left.response_time is not None
    assert np.isnan(left.response_time[5])
    assert times[5] == 0.02, "what was given stays as it was"


def test_without_names_or_choices_only_times_are_judged() -> None:
    given = changed(study(), "p3", position=1, seconds=0.01)
    left, report = in_earnest(replace(given, participant=None))
    assert report["excluded"] == []
    assert report["times_left_out"] > 0
    assert len(left) == len(given)
    shares = Triplets(IDS, np.array([[0, 1, 2]]), probabilities=np.array([[1.0, 0, 0]]))
    assert in_earnest(shares) == (shares, {})

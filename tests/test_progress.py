from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from likemind import progress
from likemind.progress import Metrics, track

if TYPE_CHECKING:
    from pathlib import Path


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_metrics_start_empty_and_append(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 9, "loss": 1}\n')
    metrics = Metrics(path)
    metrics.write(0, loss=0.5)
    metrics.write(1, loss=0.25)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "loss": 0.5},
        {"step": 1, "loss": 0.25},
    ]


def test_a_resumed_run_drops_what_its_checkpoint_has_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path)
    for step in range(5):
        first.write(step, loss=1.0)
    resumed = Metrics(path, keep=3)
    assert steps(path) == [0, 1, 2]
    resumed.write(3, loss=2.0)
    assert steps(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("tail", ['{"step": 2, "lo', '{"step": 2, "a": {"b": 1}', "\x00\x00", '{"loss": 1}', "[]"])
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n' + tail)
    Metrics(path, keep=10).write(2)
    assert steps(path) == [0, 1, 2]


def test_track_yields_everything_and_tells_in_plain_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level(logging.INFO, "likemind"):
        assert list(track("abc", total=5, what="letters", done=2)) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [f"letters: {n} of 5" for n in (3, 4, 5)]


def test_track_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(track(range(3), total=3, what="bars")) == [0, 1, 2]
    assert capsys.readouterr().out == ""

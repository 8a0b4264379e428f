"""Progress for people (bars on a terminal, plain lines elsewhere) and for machines (``metrics.jsonl``)."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger("likemind")
T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[T], *, total: int, what: str, done: int = 0) -> Iterator[T]:
    """Yield the items while showing how many of ``total`` are done (``done`` of them by an earlier run)."""
    if sys.stderr.isatty():
        yield from _bar(items, total, what, done)
        return
    told = time.monotonic()
    for count, item in enumerate(items, start=done + 1):
        yield item
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            log.info("%s: %d of %d", what, count, total)
            told = time.monotonic()


def _bar(items: Iterable[T], total: int, what: str, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


class Metrics:
    """Appends one JSON object a line to ``metrics.jsonl``.

    A resumed run passes ``keep``, the number of steps that its checkpoint has seen: later lines, written by the run
    that was killed, are dropped, so that a step stands in the file once.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(line + "\n" for line in lines if _step(line) < keep), encoding="utf-8")
        temporary.replace(path)
        self._path = path

    def write(self, step: int, **values: Any) -> None:
        """Append the values of one step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _step(line: str) -> float:
    """Return a line's step; infinity for a line that a kill cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

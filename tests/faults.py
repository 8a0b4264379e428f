"""Faults in what is done to files, one at a time; and what a folder holds."""

from __future__ import annotations

import io
import os
import resource
from typing import TYPE_CHECKING, Any, Self

import pytest

from likemind.artifacts import read_run
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Torn:
    """A file that is written to, of which every write and flush is counted, and a failing one is half done."""

    def __init__(self, file: Any, tick: Callable[[str], None]) -> None:
        self._file, self._tick = file, tick

    def write(self, data: bytes) -> int:
        try:
            self._tick("write")
        except OSError:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise
        return self._file.write(data)

    def flush(self) -> None:
        self._tick("flush")
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Faults:
    """Counts what is done to files, and fails at the ``number``-th; if ``full``, at all that need room from then on."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, code: int, *, full: bool) -> None:
        self.made: list[str] = []
        self._number, self._code, self._full = number, code, full
        real_open = io.open
        for name in ("write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real_open(file, mode, *args, **kwargs)
            self.tick("open")
            return Torn(real_open(file, mode, *args, **kwargs), self.tick)

        patch.setattr(io, "open", opened)

    def tick(self, what: str) -> None:
        self.made.append(what)
        later = self._full and what not in ("unlink", "rmdir")
        if len(self.made) == self._number or (later and len(self.made) > self._number):
            raise OSError(self._code, os.strerror(self._code))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick(name)
            return real(*args, **kwargs)

        return call


def tree(out: Path) -> dict[str, bytes]:
    """All files' bytes; of ``run.json``, which tells how long the run took, only that it is there."""
    found = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    return {name: b"" if name.endswith("run.json") else data for name, data in found.items()}


def fail_at_every_step(run: Callable[[Path], object], place: Path, code: int, *, full: bool) -> tuple[list[str], int]:
    """Run again and again, with a fault at one more step each time, and then without: it ends in the reference bytes.

    Args:
        run: Writes an artifact at a path.
        place: A folder for these.
        code: Of the error; ``full`` as for ``Faults``.

    Returns:
        What a whole run does to files, and how many runs failed.
    """
    run(place / "wanted")
    wanted, number, failed = tree(place / "wanted"), 0, 0
    while True:
        number += 1
        out = place / f"{number}"
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number, code, full=full)
            try:
                run(out)
            except OSError as error:
                failed += 1
                assert (error.errno, full) == (code, False)  # noqa: PT017
            except LikemindError as error:
                failed += 1
                assert str(out) in str(error)  # noqa: PT017
                assert "free some space and run the same command again, it will continue" in str(error)  # noqa: PT017
        for done in out.rglob("run.json"):
            if not any(parent.name.endswith(".partial") for parent in done.parents):
                read_run(done.parent, verify=True)
        run(out)
        assert tree(out) == wanted, (number, faults.made)
        assert not out.with_name(f"{out.name}.partial").exists()
        if len(faults.made) < number:
            return faults.made, failed


def refused_by_the_system(run: Callable[[Path], object], place: Path, size: int) -> str:
    """Run under the system's own limit on the size of files, in place of a small disk; return what is said."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(LikemindError) as caught:
            run(place / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (place / "out").exists()
    return str(caught.value)

"""A fault at every write, flush and rename, and a disk that fills up, while triplets are labelled."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from faults import fail_at_every_step, refused_by_the_system, tree
from likemind.errors import LikemindError
from likemind.pseudolabels.label import label

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Pieces

FAST: dict[str, Any] = {"n": 400, "clusters": 6, "npz": True}


@pytest.mark.parametrize(("code", "full"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["once", "full"])
def test_a_fault_at_any_step(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, full: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # counted, but not waited for a thousand times
    (tmp_path / "labels").mkdir()
    made, failed = fail_at_every_step(
        lambda out: label(pieces.store, pieces.teacher, out=out, **FAST), tmp_path / "labels", code, full=full
    )
    assert set(made) >= {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink"}
    assert failed >= 40


@pytest.mark.parametrize("size", [0, 40, 1000, 5000])
def test_a_limit_on_the_size_of_files(pieces: Pieces, tmp_path: Path, size: int) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "wanted", **FAST)
    said = refused_by_the_system(lambda out: label(pieces.store, pieces.teacher, out=out, **FAST), tmp_path, size)
    assert f"no room (File too large) while writing {tmp_path / 'out.partial'}: free some space" in said
    label(pieces.store, pieces.teacher, out=tmp_path / "out", **FAST)
    assert tree(tmp_path / "out") == tree(tmp_path / "wanted")


@pytest.mark.parametrize("size", ["4k", "12k", "24k"])
def test_a_disk_that_is_really_full(
    pieces: Pieces, tmp_path: Path, small_disk: Callable[[str], Path], size: str
) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "wanted", **FAST)
    disk = small_disk(size)
    with pytest.raises(LikemindError, match="disk is full"):
        label(pieces.store, pieces.teacher, out=disk / "out", **FAST)
    assert not (disk / "out").exists()
    small_disk("1m")
    label(pieces.store, pieces.teacher, out=disk / "out", **FAST)
    assert tree(disk / "out") == tree(tmp_path / "wanted")

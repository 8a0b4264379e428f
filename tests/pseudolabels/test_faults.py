"""A fault at every write, flush and rename, and a disk that fills up, while triplets are labelled."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from faults import fail_at_every_step, refused_by_the_system, tree
from likemind.errors import LikemindError
from likemind.pseudolabels.label import label

if TYPE_CHECKING:
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


@pytest.mark.skipif(sys.platform != "linux", reason="a tmpfs is Linux's")
@pytest.mark.parametrize("size", ["4k", "12k", "24k"])
def test_a_disk_that_is_really_full(pieces: Pieces, tmp_path: Path, size: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {tried.stderr.strip()}")
    label(pieces.store, pieces.teacher, out=tmp_path / "wanted", **FAST)
    try:
        with pytest.raises(LikemindError, match="disk is full"):
            label(pieces.store, pieces.teacher, out=disk / "out", **FAST)
        assert not (disk / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        label(pieces.store, pieces.teacher, out=disk / "out", **FAST)
        assert tree(disk / "out") == tree(tmp_path / "wanted")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)

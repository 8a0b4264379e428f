"""A fault at every write, flush and rename; a disk that fills up; ten kills: a second run ends in the same bytes."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import torch
from PIL import Image

from likemind.artifacts import read_run
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.images.decode import Preprocessing

from .conftest import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.backbones.base import Backbone


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


@pytest.mark.parametrize("layers", [None, pytest.param(LAYERS, marks=pytest.mark.slow)], ids=["one", "layers"])
@pytest.mark.parametrize(("code", "full"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["once", "full"])
def test_a_fault_at_any_step(
    pictures: Path,
    tmp_path: Path,
    small: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    full: bool,
    layers: list[str] | None,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # counted, but not waited for a thousand times
    for picture in sorted(pictures.iterdir())[6:]:
        picture.unlink()

    def run(out: Path) -> None:
        embed(pictures, small, out=out, layers=layers)

    run(tmp_path / "wanted")
    wanted, number, failed = tree(tmp_path / "wanted"), 0, 0
    while True:
        number += 1
        out = tmp_path / f"{number}"
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
        if len(faults.made) < number:
            break
    assert set(faults.made) >= {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink"}
    assert failed >= (50 if layers is None else 100)


@pytest.mark.parametrize("size", [0, 40, 127, 200])
def test_a_limit_on_the_size_of_files(pictures: Path, tmp_path: Path, small: Backbone, size: int) -> None:
    """The system's own refusal, by ``RLIMIT_FSIZE``, in place of a small disk."""
    embed(pictures, small, out=tmp_path / "wanted")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(LikemindError) as caught:
            embed(pictures, small, out=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"no room (File too large) while writing {tmp_path / 'out.partial'}: free some space" in str(caught.value)
    assert not (tmp_path / "out").exists()
    embed(pictures, small, out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "wanted")


def command(folder: Path, out: Path) -> subprocess.Popen[str]:
    words = ["embed", "in", "backbone", "--out", str(out), "--layer", "pooled", "--layer", "blocks.1:mean"]
    return subprocess.Popen([sys.executable, "-m", "likemind", *words], cwd=folder, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    """Bare interpreters, killed from outside; a folder that is finished before its kill makes room for another."""
    torch.manual_seed(0)
    save_backbone(
        load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160)), tmp_path / "backbone"
    )
    (tmp_path / "in").mkdir()
    for number in range(1300):  # three shards
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / f"{number:04d}.png")
    start = time.monotonic()
    assert command(tmp_path, tmp_path / "wanted").wait() == 0
    whole = time.monotonic() - start
    draw, kept, out = random.Random(0), [], tmp_path / "out-0"
    for number in range(10):
        process = command(tmp_path, out)
        time.sleep(draw.uniform(0.3, 1) * whole)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept.append(len(list(out.glob("*.partial/shard-*"))))
        if process.returncode == 0:
            assert tree(out) == tree(tmp_path / "wanted")
            out = tmp_path / f"out-{number + 1}"
    assert any(kept)
    finished = command(tmp_path, out)
    _, said = finished.communicate()
    assert finished.returncode == 0, said
    assert tree(out) == tree(tmp_path / "wanted")

"""A fault at every write, flush and rename; a disk that fills up; ten kills: a second run ends in the same bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from faults import fail_at_every_step, refused_by_the_system, tree
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.images.decode import Preprocessing

from .conftest import LAYERS

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone


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

    made, failed = fail_at_every_step(run, tmp_path, code, full=full)
    assert set(made) >= {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink"}
    assert failed >= (50 if layers is None else 100)


@pytest.mark.parametrize("size", [0, 40, 127, 200])
def test_a_limit_on_the_size_of_files(pictures: Path, tmp_path: Path, small: Backbone, size: int) -> None:
    """The system's own refusal, by ``RLIMIT_FSIZE``, in place of a small disk."""
    embed(pictures, small, out=tmp_path / "wanted")
    said = refused_by_the_system(lambda out: embed(pictures, small, out=out), tmp_path, size)
    assert f"no room (File too large) while writing {tmp_path / 'out.partial'}: free some space" in said
    embed(pictures, small, out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "wanted")


@pytest.mark.parametrize("damaged", ["features.npy", "items.parquet"])
def test_a_flipped_byte_is_refused_when_verified(pictures: Path, tmp_path: Path, small: Backbone, damaged: str) -> None:
    embed(pictures, small, out=tmp_path / "out")
    data = bytearray((tmp_path / "out" / damaged).read_bytes())
    data[-9] ^= 1
    (tmp_path / "out" / damaged).write_bytes(data)
    with pytest.raises(LikemindError, match=f"{damaged} is not the file that was written"):
        embed(pictures, small, out=tmp_path / "out", verify=True)


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

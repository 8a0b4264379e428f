"""gLocal's ``transform.npz``: the affine maps that thingsvision downloads, in and out."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likemind.artifacts import write_atomic
from likemind.errors import LikemindError, first_line
from likemind.progress import log

if TYPE_CHECKING:
    from pathlib import Path

_ARRAYS = ("weights", "bias", "mean", "std")

_DINO_B16 = "2a94cd0d0133ee370f63524cf7d57b7cd645c481"
"""The git blob that is published for DINO-B/16 and, by mistake, for DINOv2-B/14 too."""


@dataclass(frozen=True, eq=False)
class Transform:
    """z = ((x − mean) / std) weights + bias, rows of x being images."""

    weights: np.ndarray
    bias: np.ndarray
    mean: float
    std: float


def read(path: Path) -> Transform:
    """Read a file, without pickle; one without a bias has the bias zero.

    Raises:
        LikemindError: It does not exist, or its arrays are not gLocal's.
    """
    try:
        data = path.read_bytes()
        if not data.startswith(b"PK"):
            raise zipfile.BadZipFile("not a zip file")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {name: np.asarray(archive[name]) for name in _ARRAYS if name in archive.files}
    except FileNotFoundError:
        raise LikemindError(f"{path} does not exist: check the path to the transform") from None
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise LikemindError(
            f"{path} is not a readable .npz of plain arrays ({first_line(error)}): get it again"
        ) from None
    _check(path, found)
    if git_blob(data) == _DINO_B16:
        log.warning(
            "%s is the transform of DINO ViT-B/16, which is published under the name of DINOv2 ViT-B/14 too: "
            "use it on features of the former alone",
            path,
        )
    width = len(found["weights"])
    bias = found.get("bias", np.zeros(width))
    return Transform(
        found["weights"].astype(np.float32), bias.astype(np.float32), float(found["mean"]), float(found["std"])
    )


def _check(path: Path, found: dict[str, np.ndarray]) -> None:
    for name in ("weights", "mean", "std"):
        if name not in found:
            raise LikemindError(
                f"{path} has no array {name!r} (it has {', '.join(found) or 'none'}): it is not gLocal's"
            )
    weights = found["weights"]
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise LikemindError(f"{path}: weights have the shape {weights.shape}, a square is needed: it is not gLocal's")
    wanted = {"bias": (len(weights),), "mean": (), "std": ()}
    for name, shape in wanted.items():
        if name in found and found[name].shape != shape:
            raise LikemindError(
                f"{path}: {name} has the shape {found[name].shape}, {shape} is needed: it is not gLocal's"
            )
    if (
        not all(value.dtype.kind == "f" and np.isfinite(value).all() for value in found.values())
        or not found["std"] > 0
    ):
        raise LikemindError(f"{path}: a value is not finite, or std is not above 0: get it again")


def write(path: Path, weights: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
    """Write z = ((x − mean) / scale) weights + bias, mean and scale (d,), with one number for each instead."""
    one_mean, one_scale = float(mean.mean()), float(np.exp(np.log(scale).mean()))
    wide = weights.astype(np.float64)
    moved = bias + ((one_mean - mean) / scale) @ wide
    arrays = {
        "weights": (one_scale / scale[:, None] * wide).astype(np.float32),
        "bias": moved.astype(np.float32),
        "mean": np.float64(one_mean),
        "std": np.float64(one_scale),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def git_blob(data: bytes) -> str:
    """Return the name that git gives to a file's content.

    Example:
        >>> git_blob(b"")
        'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

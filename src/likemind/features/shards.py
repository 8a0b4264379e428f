"""One layer's rows while they are being made: shards in a partial folder, joined to a store at the end."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from likemind.artifacts import sync_folder, write_atomic, write_json
from likemind.errors import LikemindError
from likemind.progress import log
from likemind.triplets import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.artifacts import Artifact
    from likemind.images.collection import ImageCollection


class Shards:
    """The shards of an artifact that is being made. A row of NaN is an image that cannot be read."""

    def __init__(self, work: Artifact, dtype: str) -> None:
        self._work = work
        self._folder = work.path
        self._dtype = np.dtype(dtype).newbyteorder("<")

    def has(self, start: int) -> bool:
        """Say whether the rows from ``start`` are on the disk already."""
        return "joined" in self._work.notes or self._path(start).exists()

    def write(self, start: int, rows: np.ndarray, bad: list[str], ids: list[str]) -> None:
        """Commit the rows from ``start``, and the messages of images that are left out.

        Raises:
            LikemindError: A value is too large for float16; its image is named.
        """
        with np.errstate(over="ignore"):
            stored = rows.astype(self._dtype)
        large = np.flatnonzero(np.isinf(stored).any(axis=1))
        if len(large):
            raise LikemindError(f"the features of {ids[large[0]]!r} are too large for float16: store them as float32")
        write_json(self._folder / f"bad-{start:09d}.json", bad)
        write_atomic(self._path(start), stored.tobytes())

    def join(self, images: ImageCollection) -> dict[str, Any]:
        """Turn the shards into ``features.npy`` and ``items.parquet``; return what ``run.json`` should tell."""
        if "joined" not in self._work.notes:
            self._work.note(joined=self._joined(images))
        for file in (*self._folder.glob("shard-*"), *self._folder.glob("bad-*.json")):
            file.unlink()
        figures: dict[str, Any] = self._work.notes["joined"]
        if figures["left_out"]:
            log.warning("%d unreadable images were left out; run.json names them", len(figures["left_out"]))
        return figures

    def _joined(self, images: ImageCollection) -> dict[str, Any]:
        shards = sorted(self._folder.glob("shard-*"))
        dim = sum(shard.stat().st_size for shard in shards) // self._dtype.itemsize // len(images)
        keep = [~np.isnan(self._rows(shard, dim)).all(axis=1) for shard in shards]
        kept = np.concatenate(keep)
        if not kept.any():
            raise LikemindError(f"{images.path} holds no readable image: check the files")
        ids = [name for name, good in zip(images.ids, kept, strict=True) if good]
        temporary = self._folder / "features.npy.tmp"
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (len(ids), dim)}
        with temporary.open("wb") as opened:  # written, not mapped: on a full disk a mapped write kills the process
            np.lib.format.write_array_header_1_0(opened, header)
            for shard, good in zip(shards, keep, strict=True):
                opened.write(self._rows(shard, dim)[good].tobytes())
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(self._folder / "features.npy")
        sync_folder(self._folder)
        write_table(self._folder / "items.parquet", pa.table({"id": ids}))
        bad = [line for file in sorted(self._folder.glob("bad-*.json")) for line in json.loads(file.read_text())]
        return {"images": len(ids), "dim": dim, "left_out": [*images.left_out, *bad]}

    def _rows(self, shard: Path, dim: int) -> np.ndarray:
        return np.memmap(shard, dtype=self._dtype, mode="r").reshape(-1, dim)

    def _path(self, start: int) -> Path:
        return self._folder / f"shard-{start:09d}.f{8 * self._dtype.itemsize}"

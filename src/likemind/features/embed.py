"""`embed`: any backbone over any images, shard by shard."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch

from likemind.artifacts import Artifact, write_atomic, write_json
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError, shown
from likemind.features.store import FeatureStore
from likemind.images.collection import ImageCollection, open_images
from likemind.memory import keep_freed_memory
from likemind.progress import log, track
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from likemind.artifacts import PathLike
    from likemind.backbones.base import Backbone
    from likemind.images.decode import Preprocessing

SHARD = 512
BATCH = 32
"""Images a forward pass. Fixed, so that a shard's bytes depend on the plan alone."""


def embed(
    images: PathLike | ImageCollection,
    backbone: str | Backbone,
    *,
    out: PathLike,
    weights: str | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    engine: Literal["local"] = "local",
    skip_bad: bool = False,
    verify: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Write the features of a backbone for every image.

    Shards of 512 images are committed one by one; a killed run continues, and ends in the same bytes.

    Args:
        images: A folder, ``.tar`` or ``.parquet``.
        backbone: A timm name, a folder, or a loaded backbone.
        out: The store's directory.
        weights: As for ``load_backbone``.
        precision: Of the network's arithmetic; features are stored as float32. ``auto`` is float32 on a CPU (rows then
            agree within 1e-4 across machines) and bfloat16 on a GPU.
        engine: ``local``.
        skip_bad: Leave out images that cannot be read, and list them in ``run.json``, instead of stopping. What was
            done before a stop is kept.
        verify: Read the images' bytes again instead of trusting remembered hashes.
        overwrite: Replace another run at ``out``.

    Returns:
        The store.

    Raises:
        LikemindError: No images, an unreadable one, an unknown backbone, a full disk.

    Example:
        >>> embed("photos/", "timm/vit_base_patch14_dinov2.lvd142m", out="runs/features")  # doctest: +SKIP
    """
    if engine != "local":
        raise LikemindError(f"engine {engine!r} is not known: choose 'local'")
    collection = open_images(images)
    model = load_backbone(backbone, weights=weights)
    config = {
        "backbone": model.fingerprint,
        "preprocessing": model.preprocessing.model_dump(mode="json"),
        "layer": model.layer,
        "precision": resolve_precision(precision),
    }
    inputs = {"images": collection.key(verify=verify)}
    with Artifact(out, verb="embed", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            _write_shards(work.path, collection, model, config["precision"] == "bfloat16", skip_bad)
            work.figures = {"backbone_name": model.name, **_join(work.path, collection, model.dim)}
    store = FeatureStore.load(out, verify=verify)
    bad = store.run["figures"]["left_out"]
    if bad and not skip_bad:
        raise LikemindError(
            f"{out} was made without {len(bad)} images that cannot be read ({shown(bad[0])}): pass --skip-bad again, "
            "or mend them"
        )
    return store


def resolve_precision(precision: str) -> str:
    """Turn ``auto`` into ``float32`` or ``bfloat16``."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise LikemindError(f"precision {precision!r} is not known: choose auto, float32 or bfloat16")
    if precision == "auto":
        return "bfloat16" if torch.cuda.is_available() else "float32"
    return precision


def _write_shards(folder: Path, images: ImageCollection, model: Backbone, bfloat16: bool, skip_bad: bool) -> None:
    starts = range(0, len(images), SHARD)
    todo = [start for start in starts if not _shard(folder, start).exists()]
    for start in track(todo, total=len(starts), done=len(starts) - len(todo), what="embed (shards)"):
        positions = range(start, min(start + SHARD, len(images)))
        rows, bad = embed_rows(images, positions, model, bfloat16=bfloat16, skip_bad=skip_bad)
        write_json(folder / f"bad-{start:09d}.json", bad)
        write_atomic(_shard(folder, start), rows.tobytes())


def _shard(folder: Path, start: int) -> Path:
    return folder / f"shard-{start:09d}.f32"


def embed_rows(
    images: ImageCollection,
    positions: range | list[int],
    model: Backbone,
    *,
    bfloat16: bool = False,
    skip_bad: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Return the features of these images, float32 (n, d), and the messages of those left out as unreadable.

    Unreadable images get a row of NaN, so that rows stay aligned with ``positions``.

    Raises:
        LikemindError: An image is unreadable and ``skip_bad`` is false, or its features are not finite; it is named.
    """
    keep_freed_memory()
    done = 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = model.module.to(device).to(memory_format=torch.channels_last)
    rows: list[np.ndarray] = []
    bad: list[str] = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for pixels, messages in _batches(images, list(positions), model.preprocessing, skip_bad):
            batch = pixels.to(device).contiguous(memory_format=torch.channels_last)
            values = module(batch).float().cpu().numpy()
            unread = np.array([message is not None for message in messages])
            _check_rows(values, unread, model.dim, [images.ids[p] for p in positions[done : done + len(values)]])
            values[unread] = np.nan
            rows.append(values)
            bad += [message for message in messages if message is not None]
            done += len(values)
    return np.concatenate(rows), bad


def _check_rows(values: np.ndarray, unread: np.ndarray, dim: int, ids: list[str]) -> None:
    if values.shape != (len(ids), dim):
        raise LikemindError(f"the backbone's output has the shape {values.shape}: one row of {dim} an image is needed")
    wrong = ~np.isfinite(values).all(axis=1) & ~unread
    if wrong.any():
        name = ids[int(np.flatnonzero(wrong)[0])]
        raise LikemindError(f"the backbone's output for {name!r} is not finite: try --precision float32")


def _batches(
    images: ImageCollection, positions: list[int], recipe: Preprocessing, skip_bad: bool
) -> Iterator[tuple[torch.Tensor, list[str | None]]]:
    def prepare(position: int) -> tuple[torch.Tensor, str | None]:
        try:
            image = images.read(position)
            try:
                return recipe(image), None
            except LikemindError as error:
                raise LikemindError(f"{images.path}: {images.ids[position]}: {error}") from None
        except LikemindError as error:
            if not skip_bad:
                raise
            return torch.zeros(3, recipe.size, recipe.size), str(error)

    batches = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    with ThreadPoolExecutor(max_workers=1) as ahead:
        waiting = [ahead.submit(lambda batch: [prepare(p) for p in batch], batch) for batch in batches[:2]]
        for number in range(len(batches)):
            pixels, messages = zip(*waiting.pop(0).result(), strict=True)
            if number + 2 < len(batches):
                waiting.append(ahead.submit(lambda batch: [prepare(p) for p in batch], batches[number + 2]))
            yield torch.stack(list(pixels)), list(messages)


def _join(folder: Path, images: ImageCollection, dim: int) -> dict[str, Any]:
    shards = sorted(folder.glob("shard-*.f32"))
    keep = [~np.isnan(_rows(shard, dim)).all(axis=1) for shard in shards]
    kept = np.concatenate(keep)
    if not kept.any():
        raise LikemindError(f"{images.path} holds no readable image: check the files")
    ids = [name for name, good in zip(images.ids, kept, strict=True) if good]
    temporary = folder / "features.npy.tmp"
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), dim)}
    with temporary.open("wb") as opened:  # written, not mapped: on a full disk a mapped write kills the process
        np.lib.format.write_array_header_1_0(opened, header)
        for shard, good in zip(shards, keep, strict=True):
            opened.write(_rows(shard, dim)[good].tobytes())
    temporary.replace(folder / "features.npy")
    write_table(folder / "items.parquet", pa.table({"id": ids}))
    bad = [message for file in sorted(folder.glob("bad-*.json")) for message in json.loads(file.read_text())]
    for file in (*shards, *folder.glob("bad-*.json")):
        file.unlink()
    if bad:
        log.warning("%d unreadable images were left out; run.json names them", len(bad))
    return {"images": len(ids), "dim": dim, "left_out": bad}


def _rows(shard: Path, dim: int) -> np.ndarray:
    return np.memmap(shard, dtype=np.float32, mode="r").reshape(-1, dim)

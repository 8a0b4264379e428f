"""`embed`: any backbone over any images, shard by shard."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
import torch

from likemind.backbones.layers import check_layers, folder_of, layer_outputs
from likemind.backbones.timm import load_backbone
from likemind.distributed import check_engine, engine_of
from likemind.errors import LikemindError, shown
from likemind.features.ahead import prepared_batches
from likemind.features.shards import Shards
from likemind.features.store import FeatureStore
from likemind.images.collection import ImageCollection, open_images
from likemind.memory import keep_freed_memory
from likemind.objects import below, path_of, url_of
from likemind.progress import track
from likemind.published import artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike
    from likemind.backbones.base import Backbone
    from likemind.images.decode import Preprocessing

SHARD = 512
BATCH = 32
"""Images a forward pass. Fixed, so that a shard's bytes depend on the plan alone."""


@overload
def embed(
    images: PathLike | ImageCollection,
    backbone: str | Backbone,
    *,
    out: PathLike,
    layers: None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | Literal["alignet"] | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    dtype: Literal["float32", "float16"] = "float32",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    overwrite: bool = False,
) -> FeatureStore: ...


@overload
def embed(
    images: PathLike | ImageCollection,
    backbone: str | Backbone,
    *,
    out: PathLike,
    layers: Sequence[str],
    weights: str | None = None,
    preprocessing: Preprocessing | Literal["alignet"] | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    dtype: Literal["float32", "float16"] = "float32",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    overwrite: bool = False,
) -> dict[str, FeatureStore]: ...


def embed(
    images: PathLike | ImageCollection,
    backbone: str | Backbone,
    *,
    out: PathLike,
    layers: Sequence[str] | None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | Literal["alignet"] | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    dtype: Literal["float32", "float16"] = "float32",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    overwrite: bool = False,
) -> FeatureStore | dict[str, FeatureStore]:
    """Write the features of a backbone for every image.

    Shards of 512 images are committed one by one; a killed run continues, and ends in the same bytes.

    Args:
        images: What ``open_images`` opens: a folder, tars, Parquet files, a saved Hugging Face dataset; or their URL.
        backbone: A timm name, a folder, or a loaded backbone.
        out: The store's directory, or its URL.
        layers: Several layers in one forward pass, named as for ``load_backbone``, such as
            ``["pooled", "blocks.10:cls", "blocks.10:mean"]``. Each is a store of its own, with the same ids, in a
            folder of ``out`` named after it: ``pooled``, ``blocks.10-cls``, ``blocks.10-mean``.
        weights: As for ``load_backbone``.
        preprocessing: Instead of the backbone's own, as for ``load_backbone``; ``alignet`` is AligNet's.
        precision: Of the network's arithmetic. ``auto`` is float32 on a CPU (rows then agree within 1e-4 across
            machines) and bfloat16 on a GPU.
        dtype: Of the stored rows. float16 takes half the space, and rounds to three decimal digits.
        engine: ``local``, or ``ray``: shards are computed by Ray Data's workers, each with one thread for the network,
            and come out in the same bytes. They must find the images and this package where this process does.
        address: Of a Ray cluster, such as ``auto``; a local one is started if None.
        workers: Threads that decode images; one less than there are processors, at most 16, if None, and one for each
            of Ray's workers. No byte depends on it.
        skip_bad: Leave out images that cannot be read, and list them in ``run.json``, instead of stopping. What was
            done before a stop is kept.
        verify: Read the images' and the store's bytes again instead of trusting remembered hashes and sizes.
        overwrite: Replace another run at ``out``.

    Returns:
        The store; with ``layers``, a store for each.

    Raises:
        LikemindError: No images, an unreadable one, an unknown backbone or layer, a full disk.

    Example:
        >>> embed("photos/", "timm/vit_base_patch14_dinov2.lvd142m", out="runs/features")  # doctest: +SKIP
    """
    check_engine(engine, address)
    if dtype not in ("float32", "float16"):
        raise LikemindError(f"dtype {dtype!r} is not known: choose float32 or float16")
    if workers is not None and workers < 1:
        raise LikemindError(f"workers is {workers}: give 1 or more")
    collection = open_images(images, skip_bad=skip_bad)
    model = load_backbone(backbone, weights=weights, preprocessing=preprocessing)
    places = {model.layer: out}
    if layers is not None:
        check_layers(model, layers)
        if url_of(out) is None and (path_of(out) / "run.json").exists():
            raise LikemindError(f"{out} holds another run, and no folder for each layer: choose another --out")
        places = {layer: below(out, folder_of(layer)) for layer in layers}
    if engine == "ray" and workers is None:
        workers = 1
    job = _Job(collection, model, resolve_precision(precision), dtype, workers, skip_bad)
    try:
        _make(job, places, {"images": collection.key(verify=verify)}, overwrite, (engine, address))
    except LikemindError:
        with contextlib.suppress(OSError):  # a folder for layers that stayed empty
            path_of(out).rmdir()
        raise
    stores = {layer: _load(place, verify, skip_bad) for layer, place in places.items()}
    return stores[model.layer] if layers is None else stores


class _Job(NamedTuple):
    """What is to be embedded, and how."""

    images: ImageCollection
    model: Backbone
    precision: str
    dtype: str
    workers: int | None
    skip_bad: bool

    def configs(self, layers: Sequence[str]) -> list[dict[str, Any]]:
        """Return what decides each layer's bytes."""
        shared = {"preprocessing": self.model.preprocessing.model_dump(mode="json"), "precision": self.precision}
        shared |= {} if self.dtype == "float32" else {"dtype": self.dtype}
        fingerprints = self.model.fingerprints(layers)
        return [shared | {"layer": layer, "backbone": of} for layer, of in zip(layers, fingerprints, strict=True)]


def _make(
    job: _Job,
    places: dict[str, PathLike],
    inputs: dict[str, str],
    overwrite: bool,
    engine: tuple[str, str | None],
) -> None:
    configs = job.configs(list(places))
    with contextlib.ExitStack() as stack:
        works = [
            stack.enter_context(artifact(place, verb="embed", config=config, inputs=inputs, overwrite=overwrite))
            for place, config in zip(places.values(), configs, strict=True)
        ]
        todo = {layer: work for layer, work in zip(places, works, strict=True) if not work.done}
        if todo:
            shards = {layer: Shards(work, job.dtype) for layer, work in todo.items()}
            _write_shards(job, shards, engine)
            for layer, work in todo.items():
                work.figures = {"backbone_name": job.model.name, **shards[layer].join(job.images)}


def _load(place: PathLike, verify: bool, skip_bad: bool) -> FeatureStore:
    store = FeatureStore.load(place, verify=verify)
    bad = store.run["figures"]["left_out"]
    if bad and not skip_bad:
        raise LikemindError(
            f"{place} was made without {len(bad)} images that cannot be read ({shown(bad[0])}): pass --skip-bad again, "
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


def _write_shards(job: _Job, shards: dict[str, Shards], engine: tuple[str, str | None]) -> None:
    starts = range(0, len(job.images), SHARD)
    todo = [start for start in starts if not all(layer.has(start) for layer in shards.values())]
    if not todo:
        return
    with engine_of(*engine) as over:
        made = over(_shard, (job, list(shards)), todo)
        done = len(starts) - len(todo)
        for start, (rows, bad) in track(made, total=len(starts), done=done, what="embed (shards)"):
            for layer, values in zip(shards, rows, strict=True):
                if not shards[layer].has(start):
                    shards[layer].write(start, values, bad, job.images.ids[start : start + SHARD])


def _shard(plan: tuple[_Job, list[str]], start: int) -> tuple[list[np.ndarray], list[str]]:
    """Return each layer's rows of the images from ``start``, and what is said of those left out."""
    job, layers = plan
    positions = range(start, min(start + SHARD, len(job.images)))
    return embed_layers(
        job.images,
        positions,
        job.model,
        layers,
        bfloat16=job.precision == "bfloat16",
        skip_bad=job.skip_bad,
        workers=job.workers,
    )


def embed_rows(
    images: ImageCollection,
    positions: Sequence[int],
    model: Backbone,
    *,
    bfloat16: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Return the features of these images, float32 (n, d), and the messages of those left out as unreadable.

    Unreadable images get a row of NaN, so that rows stay aligned with ``positions``.

    Raises:
        LikemindError: An image is unreadable and ``skip_bad`` is false, or its features are not finite; it is named.
    """
    rows, bad = embed_layers(
        images, positions, model, [model.layer], bfloat16=bfloat16, skip_bad=skip_bad, workers=workers
    )
    return rows[0], bad


def embed_layers(
    images: ImageCollection,
    positions: Sequence[int],
    model: Backbone,
    layers: Sequence[str],
    *,
    bfloat16: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
) -> tuple[list[np.ndarray], list[str]]:
    """Return for each layer what ``embed_rows`` returns, from one forward pass, and the messages."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = model.module.to(device).to(memory_format=torch.channels_last)
    rows: list[list[np.ndarray]] = [[] for _ in layers]
    bad: list[str] = []

    def finish(outputs: list[torch.Tensor], messages: list[str | None], ids: list[str]) -> None:
        unread = np.array([message is not None for message in messages])
        for layer, output, done in zip(layers, outputs, rows, strict=True):
            values = output.cpu().numpy()
            _check_rows(values, unread, model.dim if layer == model.layer else None, ids)
            values[unread] = np.nan
            done.append(values)
        bad.extend(message for message in messages if message is not None)

    batches = prepared_batches(images, positions, model.preprocessing, size=BATCH, workers=workers, skip_bad=skip_bad)
    last: tuple[list[torch.Tensor], list[str | None], list[str]] | None = None
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for number, (pixels, messages) in enumerate(batches):
            batch = pixels.to(device).contiguous(memory_format=torch.channels_last)
            outputs = [output.float() for output in layer_outputs(module, batch, layers)]
            if last is not None:  # a GPU is at work on this batch while the rows before it are taken off
                finish(*last)
            here = positions[number * BATCH : number * BATCH + len(messages)]
            last = outputs, messages, [images.ids[position] for position in here]
        if last is not None:
            finish(*last)
    return [np.concatenate(done) for done in rows], bad


def _check_rows(values: np.ndarray, unread: np.ndarray, dim: int | None, ids: list[str]) -> None:
    if values.ndim != 2 or len(values) != len(ids) or dim not in (None, values.shape[1]):
        wanted = "one row" if dim is None else f"one row of {dim}"
        raise LikemindError(f"the backbone's output has the shape {values.shape}: {wanted} an image is needed")
    wrong = ~np.isfinite(values).all(axis=1) & ~unread
    if wrong.any():
        name = ids[int(np.flatnonzero(wrong)[0])]
        raise LikemindError(f"the backbone's output for {name!r} is not finite: try --precision float32")

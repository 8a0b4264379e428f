"""What does `embed` cost beside the network's own forward pass, and how fast are images decoded?

    python benchmarks/embed.py [--quick]

Prints JSON lines, CPU seconds of one thread, batches of 32, float32, random weights, JPEGs of 500×375. For each model

* ``forward``: images a CPU second of `embed`'s main thread (network, checks, writing, hashes: all but decoding), beside
  the bare network on prepared batches; ``ratio`` is embed ÷ bare, and should be 0.95 or more;
* ``together``: the same with decoding counted;
* ``serial``: all of `embed`, beside a serial loader as thingsvision's: a ``DataLoader`` in the main process, timm's own
  transform, a hook on the last layer, ``no_grad``, one array in memory that is saved at the end.

``decode`` counts decoding alone, ours beside timm's transform, and tells how many threads feed a GPU at 2,000 images a
second. ``lock`` tells whether threads can: the rate at which the interpreter's lock would bind.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

import io
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

# isort: split

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from likemind import Preprocessing, embed, load_backbone, open_images
from likemind.features.ahead import prepared_batches
from likemind.features.embed import BATCH
from likemind.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from likemind import Backbone, ImageCollection

GPU = 2000
SIZES = {"tf_efficientnet_lite0": (96, 256), "test_vit": (512, 1024), "vit_small_patch16_224": (0, 32)}
"""Images of a quick and of a full round; a vit_small takes 0.1 s an image."""


def jpeg(seed: int) -> bytes:
    """Return a JPEG of 500×375 and about 73 kB, somewhat more than ImageNet's: noise of every scale."""
    rng = np.random.default_rng(seed)
    pixels = np.full((375, 500, 3), 128.0)
    for cells in (3, 8, 24, 80, 250):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += (np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) - 128.0) * 1.2 / cells**0.25
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


def main_thread_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of this thread alone."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def bare(backbone: Backbone, batches: list[torch.Tensor]) -> None:
    """Run the network and nothing else."""
    module = backbone.module.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for pixels in batches:
            module(pixels)


def serial(name: str, images: ImageCollection, out: Path) -> None:
    """Extract features as thingsvision does."""
    module = timm.create_model(name, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(module), is_training=False)

    class Files(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, position: int) -> torch.Tensor:
            pixels: torch.Tensor = transform(Image.open(images.path / images.ids[position]).convert("RGB"))
            return pixels

    kept: list[np.ndarray] = []
    last = module.global_pool if hasattr(module.global_pool, "register_forward_hook") else module.fc_norm
    hook = last.register_forward_hook(lambda _module, _given, output: kept.append(output.detach().numpy().copy()))
    with torch.no_grad():
        for pixels in torch.utils.data.DataLoader(Files(), batch_size=BATCH):
            module(pixels)
    hook.remove()
    np.save(out, np.concatenate(kept))


def one_round(name: str, images: ImageCollection, folder: Path) -> tuple[float, float, float, float]:
    """Return CPU seconds: bare network; embed's main thread; all of embed; the serial loader."""
    backbone = load_backbone(name, weights="random")
    batches = [
        pixels.contiguous(memory_format=torch.channels_last)
        for pixels, _ in prepared_batches(images, range(len(images)), backbone.preprocessing, size=BATCH)
    ]
    bare(backbone, batches[:1])
    first = cpu_seconds(lambda: bare(backbone, batches))
    start = time.process_time()
    alone = main_thread_seconds(lambda: embed(images, backbone, out=folder / "ours"))
    together = time.process_time() - start
    shutil.rmtree(folder / "ours")
    second = cpu_seconds(lambda: bare(backbone, batches))
    peer = cpu_seconds(lambda: serial(name, images, folder / "peer.npy"))
    return (first + second) / 2, alone, together, peer


def models(images: ImageCollection, folder: Path, *, brief: bool) -> None:
    """Print the rows of every model: medians of ratios of one round each."""
    for name, (few, many) in SIZES.items():
        n = few if brief else many
        if n:
            some = images.select(images.ids[:n])
            one_round(name, images.select(images.ids[:BATCH]), folder)  # what is imported and built once
            found = np.array([one_round(name, some, folder) for _ in range(2 if brief else 3)])
            rates = n / np.median(found, axis=0)
            unit = f"images a CPU second, {n} images"
            more = {"rounds": len(found), "bare": round(float(rates[0]), 2)}
            for label, column in (("forward", 1), ("together", 2)):
                ratios = found[:, 0] / found[:, column]
                spread = [round(float(value), 3) for value in (ratios.min(), ratios.max())]
                peer = "the bare network"
                row(
                    f"embed/{label}/{name}", rates[column], unit, peer=peer, ratio=median(ratios), spread=spread, **more
                )
            ratio = median(found[:, 3] / found[:, 2])
            row(f"embed/serial/{name}", rates[2], unit, peer="a serial loader like thingsvision's", ratio=ratio)


def decoding(images: ImageCollection, *, brief: bool) -> None:
    """Print the rate of decoding and preparing, and what it means for a GPU."""
    positions = range(128 if brief else 512)
    module = timm.create_model("vit_small_patch16_224", num_classes=0)
    own = load_backbone("vit_small_patch16_224", weights="random").preprocessing
    theirs = create_transform(**resolve_model_data_config(module), is_training=False)
    data = [(images.path / images.ids[position]).read_bytes() for position in positions]
    recipes = {"timm's": own, "alignet": Preprocessing.alignet()}
    for name, recipe in recipes.items():
        ours = cpu_seconds(lambda recipe=recipe: [recipe(images.read(p)) for p in positions], 3)  # type: ignore[misc]
        peer = cpu_seconds(lambda: [theirs(Image.open(io.BytesIO(one)).convert("RGB")) for one in data], 3)
        rate = len(positions) / ours
        more = {"ratio": peer / ours, "peer": "timm's transform on Pillow"} if name == "timm's" else {}
        row(f"embed/decode/{name}", rate, "images a CPU second", **more, threads_for_2000=math.ceil(GPU / rate))


def lock(images: ImageCollection, *, brief: bool) -> None:
    """Print at what rate the interpreter's lock would bind, however many threads decode.

    Pillow's decoder and scaling and torch's arithmetic let go of it; the steps timed here do not.
    """
    held = []
    for position in range(128 if brief else 512):
        start = time.thread_time()
        image = Image.open(io.BytesIO((images.path / images.ids[position]).read_bytes()))
        opened = time.thread_time()
        image.load()
        loaded = time.thread_time()
        image.getexif().get(0x0112)
        upright = time.thread_time()
        scaled = image.resize((341, 256), Image.Resampling.BICUBIC)
        resized = time.thread_time()
        np.array(scaled.crop((58, 16, 282, 240)), dtype=np.uint8)
        held.append(opened - start + upright - loaded + time.thread_time() - resized)
    row(
        "embed/lock",
        1 / median(held),
        "images a second at most, whatever the threads",
        held_ms=round(1000 * median(held), 3),
    )


def main() -> None:
    """Make the images, and print all rows."""
    brief = quick(__doc__)
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in").mkdir()
        for number in range(512 if brief else 1024):
            copy = folder / "in" / f"{number - 64:04d}.jpg"
            data = copy.read_bytes() if number >= 64 else jpeg(number)
            (folder / "in" / f"{number:04d}.jpg").write_bytes(data)
        images = open_images(folder / "in")
        sizes = [file.stat().st_size for file in (folder / "in").iterdir()]
        sys.stderr.write(f"{len(sizes)} JPEGs of {np.mean(sizes) / 1000:.0f} kB\n")
        decoding(images, brief=brief)
        lock(images, brief=brief)
        models(images, folder, brief=brief)


if __name__ == "__main__":
    main()

"""How fast are triplets drawn and labelled, and what does AligNet's size take?

    python benchmarks/label.py [--quick] [--folder FOLDER]

CPU seconds of one thread. The peers, in the same run: rows gathered and multiplied by torch, 256 triplets a batch;
triplets drawn in numpy and told apart by ``np.unique``. Without --quick also the whole job in a fresh process: 10
million triplets over 1.28 million images of width 1,152 in float16 (needs 6 GB of disk in --folder), its stages, its
memory, and how fast this machine reads memory.
"""

from __future__ import annotations

from _measure import cpu_seconds, row

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# isort: split
import numba
import numpy as np
import pyarrow as pa
import torch

from likemind.artifacts import Artifact
from likemind.memory import keep_freed_memory
from likemind.pseudolabels import label as module
from likemind.pseudolabels.dots import pair_products
from likemind.pseudolabels.sample import cluster_border
from likemind.teacher.teacher import Teacher
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, CLUSTERS, IMAGES, TRIPLETS = 1152, 500, 1_281_167, 10_000_000


def pairs(triplets: int, peers: int) -> None:
    """Print the rows of the dot products, float32 and float16."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((200_000, WIDTH), dtype=np.float32) / 6
    half = wide.astype(np.float16)
    indices = cluster_border(rng.integers(CLUSTERS, size=len(wide)), triplets, seed=0)
    exact = pair_products_exact(wide, indices[:100_000])
    seconds = []
    for rows in (wide, half):
        pair_products(rows, indices[:1000])
        seconds.append(cpu_seconds(lambda rows=rows: pair_products(rows, indices), 3) / triplets)
    errors = [pair_products(rows, indices[:100_000]) - exact for rows in (wide, half)]
    peer = cpu_seconds(lambda: gathered(torch.from_numpy(wide), indices[:peers])) / peers
    about = f"torch gather, 256 a batch: {1 / peer:,.0f}"
    for name, spent, error in zip(("label", "label_float16"), seconds, errors, strict=True):
        unit = f"triplets a CPU s, {len(wide)} × {WIDTH}"
        spread = float(np.sqrt(np.square(error).mean()) / exact.std()), float(np.abs(error).max() / exact.std())
        more = {"error_rms_in_sd": float(f"{spread[0]:.2g}"), "error_max_in_sd": float(f"{spread[1]:.2g}")}
        row(f"label/{name}", 1 / spent, unit, peer=about, ratio=peer / spent, **more)


def pair_products_exact(rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the products in float64."""
    parts = [rows[indices[:, k]].astype(np.float64) for k in range(3)]
    return np.stack([np.einsum("ij,ij->i", parts[a], parts[b]) for a, b in ((0, 1), (0, 2), (1, 2))], axis=1)


def gathered(rows: torch.Tensor, indices: np.ndarray) -> torch.Tensor:
    """Return the products by gathering rows, a batch at a time."""
    found = []
    for start in range(0, len(indices), 256):
        batch = torch.from_numpy(indices[start : start + 256].astype(np.int64))
        a, b, c = (rows[batch[:, k]] for k in range(3))
        found.append(torch.stack([(a * b).sum(1), (a * c).sum(1), (b * c).sum(1)], dim=1))
    return torch.cat(found)


def drawn_by_numpy(labels: np.ndarray, n: int) -> np.ndarray:
    """Draw as ``cluster_border`` does, all in one go, and tell triplets apart by ``np.unique``."""
    rng = np.random.default_rng(0)
    sizes = np.bincount(labels)
    members, starts = np.argsort(labels, kind="stable"), np.cumsum(sizes) - sizes
    count, images = n + n // 8, np.uint64(len(labels))
    pair, other = rng.integers(len(sizes), size=count), rng.integers(len(sizes) - 1, size=count)
    other = np.where(other == pair, len(sizes) - 1, other)
    first = rng.integers(sizes[pair])
    second = (first + 1 + rng.integers(sizes[pair] - 1)) % sizes[pair]
    places = starts[pair] + first, starts[pair] + second, starts[other] + rng.integers(sizes[other])
    rows = np.stack([members[place] for place in places], axis=1)
    low, middle, high = np.sort(rows.astype(np.uint64), axis=1).T
    _, kept = np.unique((low * images + middle) * images + high, return_index=True)
    found: np.ndarray = rows[np.sort(kept)[:n]]
    return found


def sampling(n: int) -> None:
    """Print the row of drawing."""
    labels = np.random.default_rng(0).integers(CLUSTERS, size=IMAGES)
    cluster_border(labels, 1000, seed=0)
    own = cpu_seconds(lambda: cluster_border(labels, n, seed=0), 3)
    peer = cpu_seconds(lambda: drawn_by_numpy(labels, n))
    unit = f"CPU s for {n} different triplets, cluster_border, {IMAGES} images"
    row("label/sample", own, unit, peer=f"numpy and np.unique: {peer:.2f} CPU s", ratio=peer / own)


@numba.njit(fastmath=True)
def _read(values: np.ndarray) -> float:
    total = np.float32(0.0)
    for value in values:
        total += value
    return total


def bandwidth() -> float:
    """Return GB/s that one thread reads from memory."""
    values = np.ones(1 << 28, dtype=np.float32)
    _read(values[:10])
    return values.nbytes / 1e9 / cpu_seconds(lambda: _read(values), 5)


def make_inputs(folder: Path) -> None:
    """Write features in overlapping clusters as float16, and a teacher for them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((700, WIDTH), dtype=np.float32) / 2
    with Artifact(folder / "features", verb="embed", config={"backbone": "b" * 64}, inputs={}) as work:
        with (work.path / "features.npy").open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (IMAGES, WIDTH)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, IMAGES, 8192):
                place = rng.integers(700, size=min(8192, IMAGES - start))
                block = centres[place] + rng.standard_normal((len(place), WIDTH), dtype=np.float32)
                file.write(block.astype(np.float16).tobytes())
        ids = [f"n{k // 1300:08d}_{k}.JPEG" for k in range(IMAGES)]
        write_table(work.path / "items.parquet", pa.table({"id": ids}))
    weights = np.eye(WIDTH, dtype=np.float32) + rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 100
    teacher = Teacher.of(weights, np.zeros(WIDTH), 0.0, 6.0, penalty=0.1)
    with Artifact(folder / "teacher", verb="teach", config={}, inputs={}) as work:
        teacher.write(work.path)


def whole(folder: Path) -> dict[str, Any]:
    """Label at full size in this process; return seconds (wall, CPU) by stage, and memory in GB."""
    stages: dict[str, list[float]] = {}
    own: dict[str, float] = {"RssAnon": 0.0, "RssFile": 0.0}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return call(*args, **options)
            finally:
                stages[name] = [round(time.perf_counter() - wall, 1), round(time.process_time() - cpu, 1)]
                own.update({key: max(value, _status(key)) for key, value in own.items()})

        return run

    for name in ("aligned_features", "cluster", "labelled", "label_figures"):
        setattr(module, name, timed(name, getattr(module, name)))
    Triplets.save = timed("save", Triplets.save)  # type: ignore[method-assign]
    module.SAMPLERS["cluster_border"] = timed("sample", module.SAMPLERS["cluster_border"])
    job = timed("whole", module.label)
    job(folder / "features", folder / "teacher", out=folder / "labels", n=TRIPLETS, clusters=CLUSTERS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figures = json.loads((folder / "labels" / "run.json").read_text())["figures"]
    error = _half_error(folder, Triplets.load(folder / "labels"))
    memory = {"peak_resident_gb": round(peak, 2), **{f"{k}_gb": round(v, 2) for k, v in own.items()}}
    return {"stages": stages, **memory, "iterations": figures["iterations"], "float16_error_in_sd": error}


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith(key + ":"))


def _half_error(folder: Path, labels: Triplets) -> list[float]:
    """Return rms and largest error of 20,000 labels against float64 from the features, in their standard deviations."""
    features = np.load(folder / "features" / "features.npy", mmap_mode="r")
    teacher = Teacher.load(folder / "teacher")
    indices = labels.indices[:: len(labels) // 20_000]
    used, place = np.unique(indices, return_inverse=True)
    exact = pair_products_exact(
        (features[used].astype(np.float64) - teacher.mean_) / teacher.scale_ @ teacher.weights_ + teacher.bias_,
        place.reshape(indices.shape),
    )
    error = labels.similarities[:: len(labels) // 20_000] - exact
    return [float(f"{value / exact.std():.2g}") for value in (np.sqrt(np.square(error).mean()), np.abs(error).max())]


def full(folder: Path | None) -> None:
    """Print the row of the whole job."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        make_inputs(Path(scratch))
        command = [sys.executable, __file__, "--whole", scratch]
        before = os.getloadavg()[0]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    speed = bandwidth()
    read = {"labelled": TRIPLETS * 3 * WIDTH * 2, "cluster": found["iterations"] * IMAGES * WIDTH * 2}
    limits = {name: round(size / 1e9 / speed, 1) for name, size in read.items()}
    minutes = found["stages"]["whole"][0] / 60
    unit = f"minutes (wall, one thread) for {TRIPLETS} triplets over {IMAGES} × {WIDTH} float16, k = {CLUSTERS}"
    more = {"wall_and_cpu_s_by_stage": found.pop("stages"), **found, "load_before": round(before, 2)}
    row("label/whole", minutes, unit, **more, read_gb_s=round(speed, 1), s_at_that_bandwidth=limits)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="end within 50 s")
    parser.add_argument("--folder", type=Path, help="for the scratch files of the whole job")
    parser.add_argument("--whole", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.whole:
        print(json.dumps(whole(given.whole)))
        return
    keep_freed_memory()  # for the peers, which allocate a lot
    pairs(300_000 if given.quick else 1_000_000, 50_000 if given.quick else 200_000)
    sampling(TRIPLETS)
    if not given.quick:
        full(given.folder)


if __name__ == "__main__":
    main()

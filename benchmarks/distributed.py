"""What does Ray cost, with two workers, beside the plain run?

    python benchmarks/distributed.py [--quick]

`embed` of hard-linked JPEGs of 500×375 by test_vit (random weights, float32), by the command line: once as it is, once
with ``--engine ray``, on a cluster of two workers that is started for it and ended, and once by hand, as two plain
commands side by side on half of the images each. CPU seconds of all processes, start and end counted, one thread each.
Against the plain run the difference is Ray's (its servers, a second and third interpreter with torch, the way of the
rows from worker to driver) and that of two processes on two processors that share caches; the latter alone stands
between the plain run and that by hand. Wall seconds are told too. The bytes must be the same. With --quick there is so
little work that the start of Ray outweighs it: that row is no verdict.
"""

from __future__ import annotations

from _measure import quick, row

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# isort: split
import psutil
import torch

from embed import jpeg
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.images.collection import open_images

FEW, MANY = 1_536, 51_200
DIFFERENT = 64


def watched(line: list[str], folder: Path) -> tuple[float, float, dict[str, float]]:
    """Return wall and CPU seconds of a command and of all that it starts, and the CPU seconds by kind of process."""
    start, seen = time.monotonic(), {}
    process = psutil.Popen(line, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for one in [process, *process.children(recursive=True)]:
            try:
                spent = one.cpu_times()
                # a worker, once it has been seen to be one; the names are in that order
                name, before = kind(one, process), seen.get((one.pid, one.create_time()), ("", 0.0))[0]
                seen[one.pid, one.create_time()] = max(name, before), spent.user + spent.system
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} failed")
    by_kind: dict[str, float] = {}
    for name, seconds in seen.values():
        by_kind[name] = by_kind.get(name, 0.0) + seconds
    return time.monotonic() - start, sum(by_kind.values()), by_kind


def kind(one: psutil.Process, first: psutil.Process) -> str:
    """Return what a process is just now: the command itself, a worker at a shard, or one of Ray's servers."""
    if one.pid == first.pid:
        return "driver"
    return "workers" if any("Map(shard)" in word for word in one.cmdline()) else "servers"


def embedding(images: str, out: str) -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "likemind", "embed", images, "backbone", "--workers", "1", "--out", out]


def main() -> None:
    """Print the row."""
    brief = quick(__doc__)
    torch.set_num_threads(1)
    images = FEW if brief else MANY
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["LIKEMIND_CACHE"] = str(folder / "cache")
        for name in ("in", "half0", "half1"):
            (folder / name).mkdir()
        for number in range(images):
            copy, file = folder / "in" / f"{number % DIFFERENT:06d}.jpg", folder / "in" / f"{number:06d}.jpg"
            file.hardlink_to(copy) if number >= DIFFERENT else file.write_bytes(jpeg(number))
            (folder / f"half{number % 2}" / file.name).hardlink_to(file)
        save_backbone(load_backbone("test_vit", weights="random"), folder / "backbone")
        for name in ("in", "half0", "half1"):
            open_images(folder / name).key()  # hashes of the images are remembered from here on
        wall, cpu, _ = watched(embedding("in", "plain"), folder)
        ray_wall, ray_cpu, kinds = watched([*embedding("in", "ray"), "--engine", "ray"], folder)
        with ThreadPoolExecutor(2) as pool:
            hands = list(pool.map(lambda half: watched(embedding(half, f"plain-{half}"), folder), ("half0", "half1")))
        if (folder / "plain/features.npy").read_bytes() != (folder / "ray/features.npy").read_bytes():
            raise SystemExit("the bytes differ")
    row(
        "distributed/embed",
        100 * (ray_cpu / cpu - 1),
        f"% more CPU seconds with Ray and two workers, {images} images" + (", too few for a verdict" if brief else ""),
        peer="the plain run",
        over_by_hand=round(100 * (ray_cpu / sum(spent for _, spent, _ in hands) - 1), 1),
        cpu_s={"plain": round(cpu, 1), "ray": round(ray_cpu, 1), **{k: round(v, 1) for k, v in kinds.items()}},
        by_hand={
            "cpu_s": round(sum(spent for _, spent, _ in hands), 1),
            "wall_s": round(max(w for w, _, _ in hands), 1),
        },
        wall_s={"plain": round(wall, 1), "ray": round(ray_wall, 1)},
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()

"""How many images must be forwarded, packed and three fresh ones a triplet, for the same agreement with people?

    python -m likemind demo --world photos --out DEMO     # once: world, teacher, labels, features, backbone
    python benchmarks/packed.py DEMO OUT [--quick]

One student, EfficientNet-Lite0 at 128 px, three seeds of its batches. Independent: 200 steps of 32 triplets of three
fresh images (a picture drawn twice is forwarded once). Packed: runs of their own with a tenth and a third of those
images, 96 a step and 2,048 triplets among them. Target, rates and pull are the photographs world's; the row-wise term
exists within packed batches alone. Judged on held-out concepts and unseen classes at ``backbone``, as trained (α = 1).

Row ``images``: images of the independent runs ÷ those of the shortest packed runs whose agreement, the mean of the
seeds, is not below theirs; 0 if none is. Agreement is with VICE, a model of people (``human_model``). What is in OUT is
not made again. ``--quick`` cuts the runs to a few steps, one seed, which shows that it works and no more.
"""

from __future__ import annotations

from _measure import row

import argparse
from pathlib import Path
from typing import Any

# isort: split
import numpy as np

import likemind
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.worlds.demo import PLANS

SHARES = {"tenth": 0.1, "third": 1 / 3}
METRICS = ("photos/heldout/agreement.all@backbone", "caltech101/unseen/fewshot.k5@backbone")


def main() -> None:
    """Train what is missing, judge it all, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a cut")
    asked = parser.parse_args()
    steps, images, seeds = (6, 24, range(1)) if asked.quick else (200, 96, range(3))
    out = asked.out / ("quick" if asked.quick else "full")
    runs = {"independent": (steps, {"batching": "independent", "triplets": images // 3})}
    runs |= {f"packed {name}": (max(1, round(steps * share)), {}) for name, share in SHARES.items()}
    folders = {
        f"{name} {seed}": student(asked.demo, out / f"{name.replace(' ', '-')}-{seed}", seed, count, images, changes)
        for name, (count, changes) in runs.items()
        for seed in seeds
    }
    models = {"base": asked.demo / "base", **folders}
    data = EvaluationSet.load(asked.demo / "data")
    results = likemind.evaluate(models, data=data, out=out / "results", suite="human,generalisation")
    found = {
        name: [[results.score(f"{name} {seed}", metric).value for seed in seeds] for metric in METRICS] for name in runs
    }
    base = [results.score("base", metric).value for metric in METRICS]
    row("packed/base", base[0], "agreement", fewshot5=round(base[1], 4))
    for name, (agreements, few) in found.items():
        more: dict[str, Any] = {"by_seed": np.round(agreements, 4).tolist(), "fewshot5": round(float(np.mean(few)), 4)}
        row(f"packed/{name}", float(np.mean(agreements)), "agreement", images=runs[name][0] * images, **more)
    wanted = float(np.mean(found["independent"][0]))
    enough = [runs[name][0] for name in runs if name.startswith("packed") and np.mean(found[name][0]) >= wanted]
    ratio = steps / min(enough) if enough else 0.0
    row("packed/images", ratio, "images forwarded, independent ÷ packed", ratio=ratio, peer="independent batches")


def student(demo: Path, out: Path, seed: int, steps: int, images: int, changes: dict[str, object]) -> Path:
    """Train one student, unless it is there."""
    plan = PLANS["photos"]
    world = EvaluationSet.load(demo / "data")
    likemind.align(
        world.path / plan.training,
        str(demo / "backbone"),
        teacher=demo / "teacher",
        triplets=demo / "labels",
        features=demo / "features",
        out=out,
        changes={**plan.recipe, "steps": steps, "images": images, **changes},
        seed=seed,
        ladder=False,
    )
    return out


if __name__ == "__main__":
    main()

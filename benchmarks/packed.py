"""How many images must be forwarded, packed and three fresh ones a triplet, for the same agreement with people?

    python -m likemind demo --world photos --out DEMO     # once: world, teacher, labels, features, backbone
    python benchmarks/packed.py DEMO OUT [--quick]

One student, EfficientNet-Lite0 at 128 px, three seeds of its batches. Independent: 200 steps of 32 triplets of three
fresh images (a picture drawn twice is forwarded once). Packed: as many steps, of a third and a tenth of those images,
with 2,048 triplets among them. Target, objective, rates and pull are the same. (The row-wise term exists within packed
batches alone; a last run has it, and the demo's batches of 96, for a third of the steps.) Judged on held-out concepts
and unseen classes at ``backbone``, as trained (α = 1).

Row ``images``: images of the independent runs ÷ those of the shortest packed runs whose agreement and whose 5-shot
accuracy, means of the seeds, are not below theirs; 0 if none is. Agreement is with VICE, a model of people
(``human_model``). What is in OUT is not made again. ``--quick`` cuts the runs to a few steps, one seed, which shows
that it works and no more.
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

STEPS, IMAGES = 200, 96
RUNS: dict[str, dict[str, object]] = {
    "independent": {"batching": "independent", "triplets": IMAGES // 3},
    "packed third": {"images": 32, "clusters": 8, "row_weight": 0.0},
    "packed tenth": {"images": 10, "clusters": 5, "row_weight": 0.0},
    "packed third of the steps": {"steps": round(STEPS / 3)},
}
METRICS = ("photos/heldout/agreement.all@backbone", "caltech101/unseen/fewshot.k5@backbone")


def main() -> None:
    """Train what is missing, judge it all, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a cut")
    asked = parser.parse_args()
    seeds = range(1 if asked.quick else 3)
    cut = {"steps": 6} if asked.quick else {}
    runs: dict[str, dict[str, Any]] = {
        name: {"steps": STEPS, "images": IMAGES} | changes | cut for name, changes in RUNS.items()
    }
    out = asked.out / ("quick" if asked.quick else "full")
    folders = {
        f"{name} {seed}": student(asked.demo, out / f"{name.replace(' ', '-')}-{seed}", seed, changes)
        for name, changes in runs.items()
        for seed in seeds
    }
    data = EvaluationSet.load(asked.demo / "data")
    models = {"base": asked.demo / "base", **folders}
    results = likemind.evaluate(models, data=data, out=out / "results", suite="human,generalisation")
    base = [results.score("base", metric).value for metric in METRICS]
    row("packed/base", base[0], "agreement", fewshot5=round(base[1], 4))
    forwarded, means = {}, {}
    for name, changes in runs.items():
        by_seed = [[results.score(f"{name} {seed}", metric).value for seed in seeds] for metric in METRICS]
        forwarded[name], means[name] = changes["steps"] * changes["images"], np.mean(by_seed, axis=1)
        more: dict[str, Any] = {
            f"{what}_by_seed": np.round(found, 4).tolist()
            for what, found in zip(("agreement", "fewshot5"), by_seed, strict=True)
        }
        row(
            f"packed/{name}",
            means[name][0],
            "agreement",
            images=forwarded[name],
            fewshot5=round(means[name][1], 4),
            **more,
        )
    enough = [
        forwarded[name] for name in runs if name.startswith("packed") and (means[name] >= means["independent"]).all()
    ]
    ratio = forwarded["independent"] / min(enough) if enough else 0.0
    row("packed/images", ratio, "images forwarded, independent ÷ packed", ratio=ratio, peer="independent batches")


def student(demo: Path, out: Path, seed: int, changes: dict[str, object]) -> Path:
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
        changes={**plan.recipe, **changes},
        seed=seed,
        ladder=False,
    )
    return out


if __name__ == "__main__":
    main()

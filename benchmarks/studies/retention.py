"""What alignment costs: agreement with people against few-shot accuracy, for many ways to align one student.

    python -m likemind demo --world photos --out DEMO        # once: world, teacher, labels, features, backbone
    python benchmarks/studies/retention.py DEMO OUT [--student lite0] [--only NAME …] [--seed 0] [--draw FILE]

Every way differs from the photographs world's recipe for this student by the fields that its name tells. Each run's
figures are kept in ``OUT/NAME/heldout.json``; what is there is not made again. Prints Markdown rows for
``docs/retention.md``: differences from the base on held-out concepts and unseen classes, which neither teacher nor
student has seen, with the weights at θ₀ + α(θ − θ₀). ``teacher`` is the linear map on the untouched backbone, where the
teacher stands on it. Agreement is with VICE, a model of people (``human_model``). A way takes some five minutes of one
core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import likemind
from likemind.choice import agreement
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.episodes import Episode, accuracies, draw_episodes
from likemind.evaluation.intervals import mean_estimate
from likemind.features.embed import embed_rows
from likemind.images.collection import ImageCollection, open_images
from likemind.student.model import AlignedModel, mix, unit
from likemind.teacher.gram import dot_pairs
from likemind.teacher.teacher import Teacher
from likemind.worlds.demo import PLANS, STUDENTS, TEACHING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAPER: dict[str, object] = {"target": "paper", "head_learning_rate": 5e-4}
WAYS: dict[str, dict[str, object]] = {
    "default": {},
    **{f"pull {pull:g}": {"pull": pull} for pull in (1.0, 5.0, 60.0)},
    **{f"beta {beta:g}": {"beta": beta} for beta in (0.4, 0.6, 1.0)},
    "beta 1, steps 400": {"beta": 1.0, "steps": 400},
    "two rounds": {"rounds": 2},
    "two rounds, pull 5": {"rounds": 2, "pull": 5.0},
    **{f"row term {weight:g}": {"row_weight": weight} for weight in (0.0, 0.3, 3.0)},
    **{f"sharpness {sharpness:g}": {"sharpness": sharpness} for sharpness in (7.5, 30.0)},
    **{f"rate {rate:g}": {"learning_rate": rate} for rate in (2e-4, 1e-3)},
    **{f"steps {steps}": {"steps": steps} for steps in (100, 400)},
    **{f"images {images}": {"images": images} for images in (48, 192)},
    "paper": PAPER | {"head": "random", "temperature": 100.0},
    "paper, head from teacher": PAPER,
    **{f"lora {rank}": {"tuning": "lora", "rank": rank, "learning_rate": 1e-3} for rank in (2, 8, 32)},
    "lora 8, pull 0": {"tuning": "lora", "learning_rate": 1e-3, "pull": 0.0},
}
SHOTS, EPISODES = (1, 5), 100
ALPHAS = (1.0, 0.75, 0.5)


@dataclass
class Held:
    """What is held out: triplets with people's distribution, and few-shot tasks over unseen classes."""

    images: ImageCollection
    triplets: np.ndarray
    people: torch.Tensor
    few: np.ndarray
    tasks: dict[int, list[Episode]]

    @classmethod
    def of(cls, data: EvaluationSet, seed: int) -> Held:
        """Gather it; rows are those of ``images``."""
        judged, shown = data.judgements("heldout"), data.select(fewshot="heldout")
        assert judged.probabilities is not None
        ids = sorted({*judged.used_items, *(item.id for item in shown)})
        place = {name: row for row, name in enumerate(ids)}
        classes = [item.category for item in shown]
        return cls(
            data.images().select(ids),
            judged.positions_in(ids, "the held-out images"),
            torch.from_numpy(judged.probabilities.astype(float)),
            np.array([place[item.id] for item in shown]),
            {k: draw_episodes(classes, k, seed, episodes=EPISODES) for k in SHOTS},
        )

    def pooled(self, model: AlignedModel) -> np.ndarray:
        """Return the backbone's output."""
        return embed_rows(self.images, range(len(self.images)), model.backbone)[0]

    def score(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return agreement a triplet and accuracy a task."""
        found = {"agreement": agreement(dot_pairs(torch.from_numpy(rows).double(), self.triplets), self.people).numpy()}
        return found | {f"{k}-shot": accuracies(rows[self.few], tasks) for k, tasks in self.tasks.items()}


def points(ours: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return differences in points with their 95 % intervals."""
    found = {}
    for name, values in ours.items():
        estimate = mean_estimate(100 * (values - base[name]), 0)
        found[name] = [round(float(value), 2) for value in (estimate.value, *estimate.interval)]
    return found


def layers(model: AlignedModel, untouched: AlignedModel, held: Held) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the embeddings that a model has along the line to the untouched one, and a mix of backbone and head."""
    first = untouched.backbone.module.state_dict()
    last = {name: value.clone() for name, value in model.backbone.module.state_dict().items()}
    for alpha in ALPHAS:
        moved = {
            name: torch.lerp(first[name], value, alpha) if value.is_floating_point() else value
            for name, value in last.items()
        }
        model.backbone.module.load_state_dict(moved)
        rows = model.embeddings(held.pooled(model))
        yield f"backbone, α {alpha:g}", rows["backbone"]
        if "head" in rows:
            yield f"mix of a quarter, α {alpha:g}", mix(rows["backbone"], rows["head"], 0.25)
            yield f"head, α {alpha:g}", rows["head"]


def measure(
    way: str, asked: argparse.Namespace, held: Held, untouched: AlignedModel, base: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Align in one way, and return what it gives on what is held out."""
    told = asked.out / way.replace(" ", "-").replace(",", "")
    if (told / "heldout.json").exists():
        return dict(json.loads((told / "heldout.json").read_text()))
    demo, plan = asked.demo, PLANS["photos"]
    behind = "features" if TEACHING[asked.student] == asked.student else "teacher-features"
    model = likemind.align(
        open_images(demo / "data" / plan.training),
        str(demo / "backbone"),
        teacher=demo / "teacher",
        triplets=demo / "labels",
        features=demo / behind,
        validation=demo / "data",
        out=told,
        changes=plan.recipe | plan.slower.get(asked.student, {}) | {"alphas": (1.0,)} | WAYS[way],
        seed=asked.seed,
        ladder=False,
    )
    found = {name: points(held.score(rows), base) for name, rows in layers(model, untouched, held)}
    (told / "heldout.json").write_text(json.dumps(found, indent=1))
    return found


def main() -> None:
    """Print a row a way and layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--student", choices=STUDENTS, default="lite0")
    parser.add_argument("--only", nargs="*", choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=Path, help="a picture of the frontier")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    held = Held.of(EvaluationSet.load(asked.demo / "data"), asked.seed)
    untouched = AlignedModel.from_pretrained(asked.demo / "base")
    pooled = held.pooled(untouched)
    base = untouched.embeddings(pooled)["backbone"]
    scores = held.score(base)
    print(f"base: {', '.join(f'{name} {values.mean():.3f}' for name, values in scores.items())}")
    print("| way | layer | agreement | 1-shot | 5-shot |\n|---|---|---|---|---|")
    found: dict[str, dict[str, Any]] = {}
    if TEACHING[asked.student] == asked.student:
        taught, shares = unit(Teacher.load(asked.demo / "teacher").transform(pooled)), (0.25, 0.5, 0.75, 1.0)
        found["teacher"] = {f"share {s:g}": points(held.score(mix(base, taught, s)), scores) for s in shares}
        show("teacher", found["teacher"])
    for way in asked.only if asked.only is not None else WAYS:
        found[way] = measure(way, asked, held, untouched, scores)
        show(way, found[way])
    if asked.draw:
        draw(found, asked.draw)


def show(way: str, found: dict[str, dict[str, list[float]]]) -> None:
    """Print a row a layer."""
    for layer, figures in found.items():
        cells = " | ".join(f"{a:+.1f} [{b:+.1f}, {c:+.1f}]" for a, b, c in figures.values())
        print(f"| {way} | {layer} | {cells} |", flush=True)


def draw(found: dict[str, dict[str, dict[str, list[float]]]], out: Path) -> None:
    """Draw agreement against 1-shot: a line a way along α, at the backbone and at the mix of a quarter."""
    from matplotlib import pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True, layout="constrained")
    for pane, layer in zip(panes, ("backbone", "mix of a quarter"), strict=True):
        for way, layers_of in found.items():
            kept = [one for name, one in layers_of.items() if way == "teacher" or name.startswith(layer)]
            x, y = ([one[metric][0] for one in kept] for metric in ("1-shot", "agreement"))
            pane.plot(x, y, "k--" if way == "teacher" else "o-", lw=1.2, ms=3.5, label=way)
        pane.axvline(0, color="0.7", lw=0.8)
        pane.set(title=f"{layer}, α 1, ¾, ½", xlabel="1-shot accuracy, points from the base", xlim=(-7, 0.5))
    panes[0].set_ylabel("agreement, points from the base")
    panes[1].legend(fontsize=7, frameon=False)
    figure.savefig(out)


if __name__ == "__main__":
    main()

"""What does our loop cost beside forward and backward?

    python benchmarks/align_loop.py [--quick]

CPU seconds of one thread. Row ``overhead``: bare forward and backward of a ViT-S/16 (random weights; time does not
depend on them) over a group of images, without labels, loss, optimiser or reading of images, ÷ our loop, the same
images, packed, with all of it. The images are small drawings in memory. The two are timed in turns, so that a change of
the machine's pace meets both.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

# isort: split
import numpy as np
import torch

from likemind.alignment.known import Known
from likemind.alignment.recipe import resolve_recipe
from likemind.alignment.trainee import Student
from likemind.alignment.trainer import Running, Trainer, batches_ahead
from likemind.backbones.timm import load_backbone
from likemind.images.decode import Preprocessing
from likemind.student.model import _Pictures
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone

SIZE, IMAGES, STEPS = 224, 96, 5


def world(backbone: Backbone, images: int) -> Known:
    """Return random drawings, and features and a teacher that are as wide as real ones."""
    rng = np.random.default_rng(0)
    pictures = _Pictures([rng.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8) for _ in range(4 * images)])
    features = rng.normal(size=(len(pictures), backbone.dim)).astype(np.float32)
    mapped = np.eye(backbone.dim) + rng.normal(size=(backbone.dim, backbone.dim)) / backbone.dim
    teacher = Teacher.of(mapped, np.zeros(backbone.dim), features.mean(0), 1.0, penalty=0.1, backbone="")
    known = Known(Path(tempfile.gettempdir()), pictures, backbone, teacher, None, None, False, 0)
    known.__dict__["base_rows"] = features
    return known


def overhead(images: int, steps: int, turns: int) -> None:
    """Print the row."""
    backbone = load_backbone("vit_small_patch16_224", weights="random", preprocessing=Preprocessing(size=SIZE))
    known = world(backbone, images)
    recipe = resolve_recipe("small", {"images": images, "precision": "float32"})
    trainer = Trainer(Student.start(backbone, known, recipe, 0), known, recipe, Running(workers=1))
    batch = known.batch(recipe, 0, 0)  # a few images more, so that every cluster gives equally many
    pixels = torch.randn(len(batch.images), 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    weights = [value for value in trainer.student.backbone.parameters() if value.requires_grad]

    def bare() -> None:
        for _ in range(steps):
            output = trainer.student(pixels)
            torch.autograd.grad(output, weights, torch.ones_like(output))

    def loop() -> None:
        for _, _, read in batches_ahead(known, ((step, batch) for step in range(steps)), trainer):
            trainer.step(batch, read, 0.1, what="in the benchmark")

    bare(), loop()
    spent = [(cpu_seconds(bare), cpu_seconds(loop)) for _ in range(turns)]
    ours, peer = (
        sorted(times)[len(times) // 2] / steps / images for times in zip(*((b, a) for a, b in spent), strict=True)
    )
    ratio = sorted(a / b for a, b in spent)[len(spent) // 2]
    row(
        "align_loop/overhead",
        ratio,
        "bare forward and backward ÷ our loop, CPU s",
        peer=f"bare: {1 / peer:.2f} images a CPU s; our loop {1 / ours:.2f}",
        ratio=ratio,
        images=len(pixels),
        backbone="vit_small_patch16_224",
    )


if __name__ == "__main__":
    if quick(__doc__):
        overhead(images=10, steps=1, turns=3)
    else:
        overhead(IMAGES, STEPS, turns=5)

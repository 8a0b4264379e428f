"""A small evaluation folder with all that a real one has, and tiny backbones with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.choice import PAIRS
from likemind.datasets.evaluation_set import Description, EvaluationSet, write_description
from likemind.images.decode import Preprocessing
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from likemind.backbones.base import Backbone

EACH = 8
SPLITS = ("train", "train", "train", "train", "validation", "validation", "heldout", "heldout")
LEVELS = np.array(["between_class", "class_border", "within_class"], dtype=object)


def tiny_backbone(seed: int = 0, name: str = "test_efficientnet") -> Backbone:
    """A random network whose batch norms have seen some pictures, so that its features differ between them."""
    torch.manual_seed(seed)
    backbone = load_backbone(name, weights="random", preprocessing=Preprocessing(size=32, crop_share=1.0))
    generator = torch.Generator().manual_seed(seed)
    backbone.module.train()
    with torch.no_grad():
        for _ in range(20):
            backbone.module(
                torch.randn(16, 3, 32, 32, generator=generator) * 0.5 + torch.randn(16, 3, 1, 1, generator=generator)
            )
    backbone.module.eval()
    return backbone


def saved_backbone(folder: Path, seed: int = 0, name: str = "test_efficientnet") -> str:
    save_backbone(tiny_backbone(seed, name), folder)
    return str(folder)


def answers(
    ids: Sequence[str], human: np.ndarray, n: int, seed: int, *, people: int = 12, repeats: int = 4
) -> Triplets:
    """Answers of simulated people, ``repeats`` a triplet, slower where they are in doubt."""
    rng = np.random.default_rng(seed)
    distinct = np.stack([rng.choice(len(ids), 3, replace=False) for _ in range(n)])
    triplets = np.repeat(distinct, repeats, axis=0)
    triplets = np.take_along_axis(triplets, rng.permuted(np.tile(np.arange(3), (len(triplets), 1)), axis=1), axis=1)
    logits = np.stack([(human[triplets[:, a]] * human[triplets[:, b]]).sum(1) for a, b in PAIRS], axis=1)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    pair = (rng.random((len(p), 1)) > p.cumsum(1)).sum(1).clip(max=2)
    doubt = -(p * np.log(p + 1e-12)).sum(1)
    names = {frozenset(row): level for row, level in zip(distinct.tolist(), rng.choice(LEVELS, n), strict=True)}
    level = np.array([names[frozenset(row)] for row in triplets.tolist()], dtype=object)
    return Triplets(
        list(ids),
        triplets,
        choice=2 - pair,
        response_time=1 + doubt + 0.3 * rng.random(len(p)),
        participant=np.array([f"p{k}" for k in rng.integers(people, size=len(p))], dtype=object),
        level=level,
        source="simulated",
    )


def make_data(folder: Path) -> EvaluationSet:
    rng = np.random.default_rng(1)
    rows, human = [], []
    colours = rng.uniform(60, 200, size=(len(SPLITS), 3))
    meaning = rng.normal(size=(len(SPLITS), 3)) * 1.5
    for look in ("images", "grey"):
        (folder / look).mkdir(parents=True)
    for category, split in enumerate(SPLITS):
        for k in range(EACH):
            name = f"{category}-{k}.png"
            coarse = rng.normal(size=(4, 4, 3)) * 25 + colours[category] + rng.normal(size=3) * 12
            picture = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((32, 32))
            picture.save(folder / "images" / name)
            picture.convert("L").convert("RGB").save(folder / "grey" / name)
            fewshot = "" if split == "train" else split
            rows.append((name, f"thing {k}", f"category-{category}", f"group-{category % 2}", split, fewshot))
            human.append(meaning[category] + 0.3 * rng.normal(size=3))
    columns = ("id", "name", "category", "group", "split", "fewshot")
    write_table(folder / "items.parquet", pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))))
    for number, split in enumerate(("train", "validation", "heldout")):
        inside = [k for k, row in enumerate(rows) if row[4] == split]
        found = answers([rows[k][0] for k in inside], np.array(human)[inside], 60, number)
        found.to_parquet(folder / f"{split}.parquet")
    write_description(
        folder,
        Description(
            name="toys",
            source="simulated",
            about="Coloured squares.",
            images="images",
            judgements={split: f"{split}.parquet" for split in ("train", "validation", "heldout")},
            shifts={"grey": "grey"},
            licences={"pictures": "CC0"},
        ),
    )
    return EvaluationSet.load(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return make_data(tmp_path_factory.mktemp("data"))

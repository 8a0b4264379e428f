"""Tiny random CLIPs in open_clip's files: their images beside their texts, before and after alignment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from likemind.alignment.align import align
from likemind.alignment.zeroshot import ZeroShot
from likemind.backbones.timm import load_backbone
from likemind.features.embed import embed, embed_rows

from .conftest import made_teacher, quick

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

open_clip = pytest.importorskip("open_clip", reason="the extra openclip is not installed")

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION: dict[str, dict[str, Any]] = {
    "transformer": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "timm": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": "linear",
    },
}


def clip(kind: str, folder: Path) -> str:
    from safetensors.torch import save_file

    folder.mkdir()
    seen = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"embed_dim": 20, "vision_cfg": VISION[kind], "text_cfg": TEXT}
    if kind == "timm":
        config["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": seen}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return str(folder)


def by_open_clip(folder: Path, world: World, categories: list[str], ids: list[str]) -> float:
    """The same by open_clip alone, as its authors do it."""
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    names = sorted(set(categories))
    backbone = load_backbone(str(folder))
    images = world.data.images().select(ids)
    pixels = torch.stack([backbone.preprocessing(images.read(k)) for k in range(len(images))])
    with torch.inference_mode():
        text = model.eval().encode_text(open_clip.tokenize([f"a photo of a {name}." for name in names]), normalize=True)
        rows = model.encode_image(pixels, normalize=True)
    chosen = (rows @ text.T).argmax(1).tolist()
    return float(np.mean([names[k] == own for k, own in zip(chosen, categories, strict=True)]))


@pytest.mark.parametrize("layer", ["pooled", "projected"])
@pytest.mark.parametrize("kind", list(VISION))
def test_it_is_what_open_clip_itself_finds(world: World, tmp_path: Path, kind: str, layer: str) -> None:
    folder = clip(kind, tmp_path / "theirs")
    backbone = load_backbone(folder, layer=layer)
    items = world.data.select("validation") + world.data.select("heldout")
    ids, categories = [item.id for item in items], [item.category for item in items]
    pooled, _ = embed_rows(world.data.images().select(ids), range(len(ids)), backbone)
    judge = ZeroShot(backbone, categories)
    assert judge.accuracy(pooled) == by_open_clip(tmp_path / "theirs", world, categories, ids)
    assert judge.chance == 1 / 4


def test_retention_tells_it_and_the_text_tower_stays(world: World, tmp_path: Path) -> None:
    folder = clip("transformer", tmp_path / "theirs")
    features = embed(world.images, folder, out=tmp_path / "features")
    made_teacher(tmp_path / "teacher", features)
    align(
        world.images,
        folder,
        teacher=tmp_path / "teacher",
        features=features,
        validation=world.data,
        out=tmp_path / "m",
        recipe=quick(alphas=(1.0, 0.5)),
    )
    told = json.loads((tmp_path / "m" / "retention.json").read_text())
    items = world.data.select("validation")
    ids, categories = [item.id for item in items], [item.category for item in items]
    assert told["base"]["zeroshot"] == by_open_clip(tmp_path / "theirs", world, categories, ids)
    assert [c["alpha"] for c in told["candidates"] if "zeroshot" in c] == [1.0, 0.5]
    before, after = (
        load_file(place / "open_clip_model.safetensors") for place in (tmp_path / "theirs", tmp_path / "m/backbone")
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("visual.") and name != "visual.proj" for name in changed)
    shipped = told["shipped"]
    if shipped["shipped"] == "backbone":
        assert shipped["zeroshot"] == by_open_clip(tmp_path / "m/backbone", world, categories, ids)

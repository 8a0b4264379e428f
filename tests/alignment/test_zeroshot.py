"""Tiny random image–text models: their images beside their texts, before and after alignment."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from image_text import KINDS, image_text_folder, own_rows
from likemind.alignment import zeroshot
from likemind.alignment.align import align
from likemind.alignment.zeroshot import ZeroShot
from likemind.backbones.text import text_tower
from likemind.backbones.timm import load_backbone
from likemind.features.embed import embed, embed_rows

from .conftest import made_teacher, quick

if TYPE_CHECKING:
    from .conftest import World

ROOT = Path(__file__).parents[2]

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
    open_clip = pytest.importorskip("open_clip", reason="the extra openclip is not installed")
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
    import open_clip

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
    tower = text_tower(backbone)
    assert tower is not None
    judge = ZeroShot(tower, categories)
    assert judge.accuracy(pooled) == by_open_clip(tmp_path / "theirs", world, categories, ids)
    assert judge.chance == 1 / 4


def aligned(world: World, folder: str, out: Path) -> dict[str, Any]:
    """Align a student, and return its ``retention.json``."""
    features = embed(world.images, folder, out=out / "features")
    made_teacher(out / "teacher", features)
    align(
        world.images,
        folder,
        teacher=out / "teacher",
        features=features,
        validation=world.data,
        out=out / "m",
        recipe=quick(alphas=(1.0, 0.5), steps=3, learning_rate=3e-3),
    )
    told: dict[str, Any] = json.loads((out / "m" / "retention.json").read_text())
    return told


def test_retention_tells_it_and_the_text_tower_stays(world: World, tmp_path: Path) -> None:
    told = aligned(world, clip("transformer", tmp_path / "theirs"), tmp_path)
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
    assert of_what_is_saved(told) == by_open_clip(tmp_path / "m/backbone", world, categories, ids)


def of_what_is_saved(told: dict[str, Any]) -> float:
    """The figure of the backbone that is saved, whether or not a head is shipped with it."""
    alpha = told["shipped"]["alpha"]
    (found,) = [c["zeroshot"] for c in told["candidates"] if (c["shipped"], c["alpha"]) == ("backbone", alpha)]
    return float(found)


def by_transformers(folder: Path, world: World, categories: list[str], ids: list[str]) -> float:
    """The same by transformers alone; the words as its SigLIP's authors write them, where it is one."""
    names = sorted(set(categories))
    backbone = load_backbone(str(folder))
    images = world.data.images().select(ids)
    pixels = torch.stack([backbone.preprocessing(images.read(k)) for k in range(len(images))])
    siglip = "Siglip" in backbone.config["class"]
    texts = [f"a photo of a {name.replace('-', '')}" if siglip else f"a photo of a {name}." for name in names]
    text, rows = (torch.nn.functional.normalize(one) for one in own_rows(folder, texts, pixels))
    chosen = (rows @ text.T).argmax(1).tolist()
    assert len(set(chosen)) > 1
    return float(np.mean([names[k] == own for k, own in zip(chosen, categories, strict=True)]))


@pytest.mark.parametrize("layer", ["pooled", "projected"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_transformers_itself_finds(
    world: World, tmp_path: Path, kind: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_text_folder(kind, tmp_path)
    backbone = load_backbone(str(tmp_path), layer=layer)
    ids, categories = [item.id for item in world.data.items], [item.category for item in world.data.items]
    pooled, _ = embed_rows(world.data.images().select(ids), range(len(ids)), backbone)
    tower = text_tower(backbone)
    assert tower is not None
    judge = ZeroShot(tower, categories)
    wanted = by_transformers(tmp_path, world, categories, ids)
    assert judge.accuracy(pooled) == wanted
    assert judge.chance == 1 / 8
    monkeypatch.setattr(zeroshot, "_AT_ONCE", 3)
    assert ZeroShot(tower, categories).accuracy(pooled) == wanted


def docs_block() -> str:
    """What docs/align.md says of how a student and its text tower come together again."""
    (block,) = re.findall(r"```python\n(import transformers\n.*?)```", (ROOT / "docs/align.md").read_text(), re.DOTALL)
    return str(block)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_transformers_is_put_back_beside_its_text_tower(world: World, tmp_path: Path, kind: str) -> None:
    theirs, saved, whole = (tmp_path / name for name in ("theirs", "m/backbone", "whole"))
    image_text_folder(kind, theirs)
    told = aligned(world, str(theirs), tmp_path)
    items = world.data.select("validation")
    ids, categories = [item.id for item in items], [item.category for item in items]
    assert told["base"]["zeroshot"] == by_transformers(theirs, world, categories, ids)
    assert [c["alpha"] for c in told["candidates"] if "zeroshot" in c] == [1.0, 0.5]

    block = docs_block().replace("CLIP", kind.removesuffix("Model"))
    for name, here in {"openai/clip-vit-base-patch32": theirs, "runs/aligned/backbone": saved}.items():
        assert name in block
        block = block.replace(name, str(here))
    exec(block.replace("runs/aligned-clip", str(whole)), {})
    for file in theirs.glob("*.json"):
        if not (whole / file.name).exists():
            (whole / file.name).write_bytes(file.read_bytes())
    before, after = (load_file(place / "model.safetensors") for place in (theirs, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) > 20
    assert all(name.startswith("vision_model.") for name in changed)
    assert not any("text" in name for name in load_file(saved / "model.safetensors"))
    assert of_what_is_saved(told) == by_transformers(whole, world, categories, ids)


def test_without_a_tokenizer_there_is_no_figure(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_text_folder("CLIPModel", tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    told = aligned(world, str(tmp_path / "theirs"), tmp_path)
    assert told["candidates"]
    assert not any("zeroshot" in one for one in [told["base"], told["shipped"], *told["candidates"]])
    assert [line for line in caplog.messages if "no zero-shot accuracy" in line and "holds no tokenizer" in line]

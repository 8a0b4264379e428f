from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import timm
from torch import nn

from likemind.backbones.names import SHORT_NAMES, library_of
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_short_name_is_a_pretrained_model_of_timm(name: str) -> None:
    known = SHORT_NAMES[name]
    assert timm.is_model_pretrained(known.name)
    assert timm.get_pretrained_cfg(known.name).license == known.licence


def test_the_papers_students_are_all_there() -> None:
    assert set(SHORT_NAMES) == {
        "vit-s", "vit-b", "vit-l", "dinov1-b", "dinov2-b", "siglip-b", "siglip2-b", "clip-b",
    }  # fmt: skip


@pytest.mark.slow
def test_siglip_is_as_it_was_trained() -> None:
    backbone = load_backbone("siglip-b", weights="random")
    assert backbone.name == "siglip-b"
    assert (backbone.dim, backbone.config["architecture"]) == (768, "vit_base_patch16_siglip_224")
    recipe = backbone.preprocessing
    assert (recipe.size, recipe.resize, recipe.crop_share) == (224, "squash", 1.0)
    assert (recipe.mean, recipe.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    acts = [part for part in backbone.module.modules() if "GELU" in type(part).__name__]
    assert len(acts) == 13  # twelve blocks, and the head that pools
    assert not any(isinstance(part, nn.GELU) and part.approximate == "none" for part in acts)
    assert load_backbone("timm/vit_base_patch16_siglip_224", weights="random").preprocessing.resize == "crop"


def test_a_vit_is_timms_own() -> None:
    short, long = (load_backbone(name, weights="random") for name in ("vit-s", "vit_small_patch16_224.augreg_in21k"))
    assert short.preprocessing == long.preprocessing
    assert short.config == long.config


def test_what_a_name_belongs_to(tmp_path: Path) -> None:
    assert library_of("timm/test_vit") == library_of("test_vit") == library_of(str(tmp_path)) == "timm"
    assert library_of("open_clip/ViT-B-32:openai") == "open_clip"
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert library_of(str(tmp_path)) == "open_clip"
    for config, library in (({"model_type": "vit"}, "transformers"), ({"architecture": "test_vit"}, "timm")):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert library_of(str(tmp_path)) == library
    with pytest.raises(LikemindError, match=r"one of vit-s, .*clip-b, hf/ORG/NAME, open_clip/MODEL:TAG"):
        load_backbone("resnet5O")

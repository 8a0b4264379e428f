"""Tiny random models of every library that has an adapter, as folders that the library itself would read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from likemind.backbones.timm import load_backbone
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone

SIZE, PATCH, WIDTH = 32, 8, 32
_TOWER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "attention_dropout": 0.5,
    "drop_path_rate": 0.5,
    "num_register_tokens": 2,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 49}
PROCESSORS: dict[str, dict[str, Any]] = {
    "squash": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "crop": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 37},
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": SIZE},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": SIZE, "width": SIZE}, "resample": 2},
    "dinov3": {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": SIZE, "width": SIZE}},
}
FAMILIES = {
    "SiglipModel": ("SiglipConfig", "squash"),
    "SiglipVisionModel": ("SiglipVisionConfig", "squash"),
    "CLIPModel": ("CLIPConfig", "clip"),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", "clip"),
    "ViTModel": ("ViTConfig", "vit"),
    "ViTForImageClassification": ("ViTConfig", "vit"),
    "Dinov2Model": ("Dinov2Config", "crop"),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", "crop"),
    "DINOv3ViTModel": ("DINOv3ViTConfig", "dinov3"),
}


def shake(module: nn.Module) -> nn.Module:
    """Give every weight a value of its own, so that none is a zero or a one that would hide a loss."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return module.eval()


def transformers_folder(kind: str, folder: Path) -> Any:
    """Save a tiny model of transformers; return it."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    config, processor = FAMILIES[kind]
    make = getattr(transformers, config)
    fields = {name: value for name, value in _TOWER.items() if hasattr(make(), name) or config == "SiglipConfig"}
    if config in ("SiglipConfig", "CLIPConfig"):
        tower = {name: value for name, value in _TOWER.items() if "prob" not in name and "path" not in name}
        given = make(text_config=_TEXT, vision_config={**tower, "projection_dim": 20}, projection_dim=20)
        if config == "SiglipConfig":
            given = make(text_config=_TEXT, vision_config=tower)
    else:
        given = make(**fields)
    model = shake(getattr(transformers, kind)(given))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[processor]))
    return model


_OPEN_TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "transformer": {
        "embed_dim": 20,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": WIDTH, "head_width": 8, "patch_size": PATCH},
        "text_cfg": _OPEN_TEXT,
    },
    "resnet": {
        "embed_dim": 20,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": _OPEN_TEXT,
    },
    "timm": {
        "embed_dim": 20,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
        },
        "text_cfg": _OPEN_TEXT,
        "custom_text": True,
    },
}


def open_clip_folder(kind: str, folder: Path) -> Any:
    """Save a tiny CLIP of open_clip; return it."""
    open_clip = pytest.importorskip("open_clip", reason="the extra openclip is not installed")
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    seen = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP[kind], "preprocess_cfg": seen}))
    model = shake(open_clip.create_model(f"local-dir:{folder}", load_weights=False))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model


class Own(nn.Module):
    """A network of the user's, with all that behaves otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
        )
        self.last = nn.Linear(6, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(pixels))


def own() -> nn.Module:
    torch.manual_seed(3)
    return shake(Own())


ADAPTERS = [
    *(f"hf {kind}" for kind in FAMILIES),
    "hf CLIPModel projected",
    *(f"open_clip {kind}" for kind in OPEN_CLIP),
    *(f"open_clip {kind} projected" for kind in OPEN_CLIP),
    "timm test_vit",
    "timm test_resnet",
    "timm test_efficientnet",
    "own",
]


def build(what: str, folder: Path) -> Backbone:
    """Load a tiny backbone through the adapter that is named first."""
    library, kind, layer = [*what.split(), "", "pooled"][:3] if " " in what else (what, "", "pooled")
    layer = layer or "pooled"
    torch.manual_seed(11)
    if library == "own":
        return load_backbone(own(), preprocessing=Preprocessing(size=SIZE))
    if library == "timm":
        backbone = load_backbone(kind, weights="random")
        shake(backbone.module)
        return backbone
    (transformers_folder if library == "hf" else open_clip_folder)(kind, folder)
    return load_backbone(str(folder), layer=layer)


def pixels(backbone: Backbone, n: int = 3) -> torch.Tensor:
    size = backbone.preprocessing.size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))

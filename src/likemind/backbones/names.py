"""Short names of the paper's students, and which library any other name belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from likemind.artifacts import read_json
from likemind.backbones.saved import ADAPTER, inner, read_saved
from likemind.backbones.weights import TANH

_WHOLE = {"resize": "squash", "crop_share": 1.0}


@dataclass(frozen=True)
class Named:
    """A model that has a short name.

    Attributes:
        name: timm's name of it.
        licence: Of the weights, as timm's entry or model card says.
        arguments: Of ``timm.create_model``, where timm's defaults are not how the weights were trained.
        preprocessing: What the weights were trained with, where timm's entry says otherwise.
    """

    name: str
    licence: str = "apache-2.0"
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)


SHORT_NAMES = {
    "vit-s": Named("vit_small_patch16_224.augreg_in21k"),
    "vit-b": Named("vit_base_patch16_224.augreg_in21k"),
    "vit-l": Named("vit_large_patch16_224.augreg_in21k"),
    "dinov1-b": Named("vit_base_patch16_224.dino"),
    "dinov2-b": Named("vit_base_patch14_dinov2.lvd142m"),
    "siglip-b": Named("vit_base_patch16_siglip_224.webli", arguments=TANH, preprocessing=_WHOLE),
    "siglip2-b": Named("vit_base_patch16_siglip_224.v2_webli", arguments=TANH, preprocessing=_WHOLE),
    "clip-b": Named("vit_base_patch16_clip_quickgelu_224.openai", preprocessing={"crop_share": 1.0}),
}
"""AligNet's students: supervised ViTs on ImageNet-21k, DINO, DINOv2, SigLIP, SigLIP 2 and CLIP.

SigLIP and SigLIP 2 were trained with the tanh approximation of GELU and see the whole picture squeezed to a square;
OpenAI's CLIP was trained with QuickGELU and sees the whole shorter side. timm's plain entries say otherwise.
"""


def library_of(name: str) -> str:
    """Return the library whose files or names these are: ``timm``, ``transformers``, ``open_clip`` or ``module``.

    Example:
        >>> library_of("hf/facebook/dinov2-base"), library_of("siglip-b")
        ('transformers', 'timm')
    """
    for prefix, library in (("hf/", "transformers"), ("open_clip/", "open_clip"), ("timm/", "timm")):
        if name.startswith(prefix):
            return library
    folder = inner(Path(name))
    if (folder / ADAPTER).exists():
        return read_saved(folder).library
    if (folder / "config.json").exists():
        config = read_json(folder / "config.json")
        ours = isinstance(config, dict) and "architecture" not in config and "model_type" in config
        return "transformers" if ours else "timm"
    return "open_clip" if (folder / "open_clip_config.json").exists() else "timm"

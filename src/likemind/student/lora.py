"""LoRA: train a few numbers beside frozen weights, and add them up before saving."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone

_ADAPTER = "default"


def with_lora(backbone: Backbone, rank: int, *, scale: float | None = None, seed: int = 0) -> Backbone:
    """Return a copy of a backbone in which every linear layer W has become W + scale · B·A, and only A and B learn.

    B begins at zero, so that the output is at first the backbone's. Linear layers inside ``nn.MultiheadAttention``,
    whose weights PyTorch reads without calling the layer, are left out: in open_clip's own towers only the MLPs get A
    and B, and of SigLIP's pooling head in transformers only the MLP. timm and the rest of transformers have all.

    Args:
        backbone: Of transformers' or timm's vision transformers, or whatever has linear layers.
        rank: Of B·A; 0 freezes the whole backbone, so that a head on top is all that learns.
        scale: Of B·A; 1/√rank if None, with which a step's size hangs little on the rank (rank-stabilised LoRA).
        seed: Of A's first values.

    Raises:
        LikemindError: peft is not installed, the rank is negative, or there is no linear layer.

    Source:
        Hu et al. 2022, https://arxiv.org/abs/2106.09685; the scale from Kalajdzievski 2023,
        https://arxiv.org/abs/2312.03732; the layers from peft.

    Example:
        >>> from likemind.backbones.timm import load_backbone
        >>> few = with_lora(load_backbone("timm/test_vit", weights="random"), 2)
        >>> sum(value.numel() for value in few.module.parameters() if value.requires_grad)
        10752
    """
    if rank < 0:
        raise LikemindError(f"the rank of LoRA is {rank}: choose 0 or more")
    module = deepcopy(backbone.module).requires_grad_(False)
    if rank:
        _inject(module, backbone.name, rank, scale, seed)
    return replace(backbone, module=module)


def merge_lora(backbone: Backbone, alpha: float = 1.0) -> Backbone:
    """Return a copy with α · scale · B·A added to each weight: a plain backbone again, with the names it had before.

    Between α = 0, the backbone that training began with, and α = 1 the weights lie on a straight line.

    Args:
        backbone: What ``with_lora`` returned, trained; one without LoRA is copied.
        alpha: How far to go.
    """
    module: Any = deepcopy(backbone.module)
    for name, layer in [(name, part) for name, part in module.named_modules() if hasattr(part, "get_delta_weight")]:
        plain = layer.get_base_layer()
        with torch.no_grad():
            plain.weight.add_(layer.get_delta_weight(_ADAPTER), alpha=alpha)
        module.set_submodule(name, plain)
    return replace(backbone, module=module.requires_grad_(True))


def _inject(module: nn.Module, name: str, rank: int, scale: float | None, seed: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise LikemindError("LoRA needs the package peft: pip install 'likemind[lora]'") from None
    layers = _linear_layers(module)
    if not layers:
        raise LikemindError(f"{name} has no linear layer for LoRA: choose a vision transformer, or train all weights")
    config = LoraConfig(
        r=rank,
        lora_alpha=math.sqrt(rank) if scale is None else scale * rank,
        lora_dropout=0.0,
        target_modules=layers,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, module, _ADAPTER)


def _linear_layers(module: nn.Module) -> list[str]:
    fused = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention))
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and not (fused and name.startswith(fused))
    ]

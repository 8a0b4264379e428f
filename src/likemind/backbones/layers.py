"""Embeddings from inside a network: any of its modules by name, several in one forward pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from likemind.errors import LikemindError, few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from likemind.backbones.base import Backbone

POOLED = "pooled"
OWN = (POOLED, "projected")
"""What a network itself returns, as it was loaded; other layers lie inside it."""

POOLINGS = ("cls", "mean")


def layer_outputs(module: nn.Module, pixels: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """Return the embeddings of several layers from one forward pass.

    A layer is ``pooled`` or ``projected`` (what the network returns, as it was loaded), or ``MODULE`` or
    ``MODULE:POOLING``, where ``MODULE`` is a name of ``module.named_modules()`` such as ``blocks.10``. Of tokens
    (n, t, d), ``cls`` takes the class token and ``mean`` the mean of all but the network's ``num_prefix_tokens``; of a
    map of features, (n, d, h, w) or (n, h, w, d) as the network's ``output_fmt`` says, ``mean`` is that over places.
    Means are taken in float32.

    Shapes:
        pixels: (n, 3, size, size). Returns one (n, d) for each layer.

    Raises:
        LikemindError: There is no such layer, or it cannot be pooled so.
    """
    found: dict[str, Tensor] = {}
    inner = [layer for layer in layers if layer not in OWN]
    hooks = [_submodule(module, layer).register_forward_hook(_keep(module, layer, found, pixels)) for layer in inner]
    try:
        found |= dict.fromkeys(OWN, module(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    lost = [layer for layer in inner if layer not in found]
    if lost:
        raise LikemindError(f"the network does not run the layer {lost[0]!r} by itself: choose one around it")
    return [found[layer] for layer in layers]


def check_layers(backbone: Backbone, layers: Sequence[str]) -> None:
    """Refuse layers that the network lacks, that are named twice, or whose folders would be the same."""
    if not layers:
        raise LikemindError("no layer is named: give 'pooled' or others")
    if len({folder_of(layer) for layer in layers}) < len(layers):
        raise LikemindError(f"the layers {few(layers)} name one twice: give each once")
    own = backbone.layer if backbone.layer in OWN else POOLED
    for layer in layers:
        if layer not in OWN:
            _submodule(backbone.module, layer)
        elif layer != own:
            raise LikemindError(f"{backbone.name} returns {own!r}, not {layer!r}: load it with layer={layer!r}")


def folder_of(layer: str) -> str:
    """Return the name of a layer's folder: ``blocks.10-cls`` for ``blocks.10:cls``."""
    return re.sub(r"[^\w.]", "-", layer)


def _submodule(module: nn.Module, layer: str) -> nn.Module:
    name, _, pooling = layer.partition(":")
    names: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in names:
        import difflib

        near = difflib.get_close_matches(name, names, n=3) or [known for known in names if known][-3:]
        raise LikemindError(f"the network has no layer {layer!r}: choose 'pooled', or a module such as {few(near)}")
    if pooling not in ("", *POOLINGS):
        raise LikemindError(f"layer {layer!r}: the pooling {pooling!r} is not known: choose {' or '.join(POOLINGS)}")
    return names[name]


def _keep(module: nn.Module, layer: str, found: dict[str, Tensor], pixels: Tensor) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        value = next(iter(output), None) if isinstance(output, (tuple, list)) else output
        if not isinstance(value, torch.Tensor) or not value.ndim or len(value) != len(pixels):
            raise LikemindError(f"the layer {layer!r} returns no row an image: choose another")
        found[layer] = _pool(module, value, layer)

    return hook


def _pool(module: Any, value: Tensor, layer: str) -> Tensor:
    pooling = layer.partition(":")[2]
    prefix = int(getattr(module, "num_prefix_tokens", 0))
    if value.ndim == 2 and not pooling:
        return value.clone()  # a later module may write into it
    if value.ndim == 3 and pooling == "cls" and prefix and getattr(module, "has_class_token", True):
        return value[:, 0].clone()
    if value.ndim == 3 and pooling == "mean":
        return value[:, prefix:].float().mean(dim=1)
    if value.ndim == 4 and pooling == "mean":
        return value.float().mean(dim=(1, 2) if getattr(module, "output_fmt", "NCHW") == "NHWC" else (2, 3))
    raise LikemindError(f"layer {layer!r} has the shape {tuple(value.shape)}: {_advice(value, pooling)}")


def _advice(value: Tensor, pooling: str) -> str:
    if value.ndim == 2:
        return "it needs no pooling, name it without"
    if value.ndim not in (3, 4):
        return "only tokens and maps of features can be pooled, choose another"
    if pooling == "cls":
        return f"it has no class token, say {POOLINGS[1]}"
    return "say how it is pooled, such as NAME:mean" if value.ndim == 4 else "say NAME:cls or NAME:mean"

"""Backbones of the user's own: any module that turns pixels into one row an image."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from likemind.artifacts import write_atomic
from likemind.backbones.base import Backbone
from likemind.backbones.saved import inner, read_saved, write_saved
from likemind.backbones.weights import plain_state, read_weights, reason
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from torch import nn

    from likemind.images.decode import Preprocessing


def from_module(
    module: nn.Module, *, weights: str | None = None, layer: str = "pooled", preprocessing: Preprocessing | None = None
) -> Backbone:
    """Make a backbone of a module.

    The module is used itself, not a copy, and put in evaluation mode. The fingerprint holds its weights and the name of
    its class, but cannot hold its code.

    Args:
        module: Turns float32 pixels (n, 3, size, size) into an embedding (n, d).
        weights: A file to fill it from; what it holds if None.
        layer: ``pooled``, the module's output.
        preprocessing: From an RGB image to the module's input.

    Raises:
        LikemindError: No preprocessing, a file that does not fit, or an output of another shape.
    """
    name = class_name(module)
    if preprocessing is None:
        raise LikemindError(
            f"how pictures become the input of {name} is not known: pass preprocessing=Preprocessing(…)"
        )
    if layer != "pooled":
        raise LikemindError(f"layer {layer!r} is not known for a module of your own: choose 'pooled'")
    if weights not in (None, "random"):
        fill(module, Path(str(weights)))
    module.eval()
    about = {"library": "module", "class": name, "architecture": f"module/{name}"}
    return Backbone(name, module, preprocessing, _width(module, preprocessing.size, name), about, layer)


def class_name(module: nn.Module) -> str:
    """Return where a module's class stands, such as ``torchvision.models.resnet.ResNet``."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def fill(module: nn.Module, path: Path) -> None:
    """Load a state dict strictly; no code in the file is run.

    Raises:
        LikemindError: The file is missing, damaged, or not this module's.
    """
    try:
        module.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise LikemindError(
            f"{path} does not fit {class_name(module)} ({reason(error)}): pass the module it is of"
        ) from None


def _width(module: nn.Module, size: int, name: str) -> int:
    some = next((value for value in module.parameters()), torch.zeros(()))
    pixels = torch.zeros(2, 3, size, size, device=some.device)
    try:
        with torch.inference_mode():
            found = module(pixels)
    except Exception as error:  # noqa: BLE001 - somebody else's code raises what it likes
        raise LikemindError(
            f"{name} does not take pixels of shape (2, 3, {size}, {size}) ({reason(error)}): check its preprocessing"
        ) from None
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 2 or not found.is_floating_point():
        told = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise LikemindError(f"{name} gives {told} for two pictures, not one row of numbers each: wrap it")
    return int(found.shape[1])


def load(name: str) -> Backbone:
    """Refuse a folder that a backbone of the user's own was saved in: its weights alone do not make a network."""
    kind = read_saved(inner(Path(name))).architecture
    raise LikemindError(
        f"{name} holds the weights of {kind}, a class of your own: pass the module, as in "
        "AlignedModel.from_pretrained(…, backbone=module)"
    )


def reload(folder: Path, module: nn.Module) -> Backbone:
    """Fill a copy of a module with the weights in a folder that ``save`` wrote.

    Raises:
        LikemindError: The folder is of another class, or its weights do not fit.
    """
    saved = read_saved(folder)
    if saved.library != "module" or saved.architecture != class_name(module):
        raise LikemindError(
            f"{folder} is of a {saved.architecture}, not of a {class_name(module)}: pass the module it was made from"
        )
    copy = deepcopy(module)
    fill(copy, folder / "model.safetensors")
    return from_module(copy, layer=saved.layer, preprocessing=saved.preprocessing)


def save(backbone: Backbone, folder: Path) -> None:
    """Write ``model.safetensors``, the module's state dict, and its class's name in ``adapter.json``."""
    from safetensors.torch import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "model.safetensors", to_bytes(plain_state(backbone.module), metadata={"format": "pt"}))
    write_saved(backbone, folder)

"""From a backbone to the adapter of the library that it belongs to, for all but timm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from likemind.backbones.names import library_of

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone
    from likemind.images.decode import Preprocessing


def load_other(
    name: str | nn.Module, *, weights: str | None, layer: str, preprocessing: Preprocessing | None
) -> Backbone | None:
    """Load a backbone that is not timm's, as ``load_backbone`` says; None where it is timm's."""
    from likemind.backbones import open_clip, transformers, user

    if isinstance(name, nn.Module):
        return user.from_module(name, weights=weights, layer=layer, preprocessing=preprocessing)
    name = str(name)
    library = library_of(name)
    if library == "module":
        return user.load(name)
    if library == "timm":
        return None
    load = transformers.load if library == "transformers" else open_clip.load
    return load(name, weights=weights, layer=layer, preprocessing=preprocessing)


def save_other(backbone: Backbone, folder: Path) -> None:
    """Write a backbone that is not timm's in its own library's files."""
    from likemind.backbones import open_clip, transformers, user

    writers = {"transformers": transformers.save, "open_clip": open_clip.save, "module": user.save}
    writers[backbone.library](backbone, folder)

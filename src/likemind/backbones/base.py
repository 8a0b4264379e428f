"""What a backbone is to the rest of the house."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from likemind.backbones.layers import layer_outputs
from likemind.hashes import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.images.decode import Preprocessing


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network that turns prepared pixels into one embedding an image.

    Attributes:
        name: As given to ``load_backbone``.
        module: The network, in evaluation mode: ``module(pixels)`` is the pooled output.
        preprocessing: From an RGB image to the network's input.
        dim: Width of the embedding.
        config: What the host library needs to build the network again; ``library`` names it where it is not timm.
        layer: Which output is taken: ``pooled``, or another one, as ``load_backbone`` says.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    dim: int
    config: dict[str, Any]
    layer: str = "pooled"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the embedding.

        Shapes:
            pixels: (n, 3, size, size). Returns (n, dim).
        """
        return layer_outputs(self.module, pixels, [self.layer])[0]

    @property
    def library(self) -> str:
        """Whose files the backbone is saved in: ``timm``, ``transformers``, ``open_clip``, or ``module`` for none."""
        return str(self.config.get("library", "timm"))

    @property
    def weights_hash(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights and buffers, as they are now."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the embedding: weights, architecture, layer, preprocessing."""
        return self.fingerprints([self.layer])[0]

    def fingerprints(self, layers: Sequence[str]) -> list[str]:
        """Return the fingerprint that this backbone has at each of these layers."""
        arguments = self.config.get("model_args")
        parts = {
            "weights": self.weights_hash,
            "architecture": self.config["architecture"],
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            **({"arguments": arguments} if arguments else {}),
        }
        return [key_of(**parts, layer=layer) for layer in layers]

"""Zero-shot accuracy of an image–text student: its images beside its own text tower, which alignment leaves alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likemind.backbones.timm import save_backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from likemind.backbones.base import Backbone

PROMPT = "a photo of a {}."


class ZeroShot:
    """Names of categories, as the text tower of one of open_clip's models embeds them.

    Args:
        backbone: A vision tower of open_clip, whose files keep its text tower and its projection.
        categories: The category of each image; ``_`` is read as a space.

    Example:
        >>> ZeroShot(load_backbone("open_clip/ViT-B-32:openai"), ["cat", "dog"])  # doctest: +SKIP
    """

    def __init__(self, backbone: Backbone, categories: Sequence[str]) -> None:
        import open_clip

        names, labels = np.unique(np.array(categories), return_inverse=True)
        with tempfile.TemporaryDirectory() as folder:
            save_backbone(backbone, Path(folder))
            model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(
                [PROMPT.format(str(name).replace("_", " ")) for name in names]
            )
        with torch.inference_mode():
            text = model.eval().encode_text(tokens, normalize=True)
        self.chance = 1 / len(names)
        self._labels, self._text = labels, text.float()
        self._visual: Any = model.visual if backbone.layer == "pooled" else None

    def accuracy(self, pooled: np.ndarray) -> float:
        """Return the share of images whose own category is the nearest.

        Shapes:
            pooled: (n, d), the backbone's output.
        """
        with torch.inference_mode():
            rows = torch.nn.functional.normalize(self._projected(torch.from_numpy(pooled)))
            chosen = (rows @ self._text.T).argmax(dim=1).numpy()
        return float((chosen == self._labels).mean())

    def _projected(self, pooled: Tensor) -> Tensor:
        """Take the pooled output into the space shared with text, by the projection that alignment leaves alone."""
        projected: Tensor = pooled
        if getattr(self._visual, "proj", None) is not None:
            projected = pooled @ self._visual.proj
        elif hasattr(self._visual, "trunk"):
            projected = self._visual.head(pooled)
        return projected

"""Zero-shot accuracy of an image–text student: its images beside its own text tower, which alignment leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.backbones.text import TextTower

PROMPT = "a photo of a {}."
_AT_ONCE = 256


class ZeroShot:
    """Names of categories, as a text tower embeds them.

    Args:
        tower: The text tower beside the backbone.
        categories: The category of each image; ``_`` is read as a space.

    Example:
        >>> tower = text_tower(load_backbone("open_clip/ViT-B-32:openai"))  # doctest: +SKIP
        >>> ZeroShot(tower, ["cat", "dog"]).accuracy(pooled)  # doctest: +SKIP
    """

    def __init__(self, tower: TextTower, categories: Sequence[str]) -> None:
        names, labels = np.unique(np.array(categories), return_inverse=True)
        texts = [PROMPT.format(str(name).replace("_", " ")) for name in names]
        with torch.inference_mode():
            rows = [tower.embed(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
        self.chance = 1 / len(names)
        self._labels, self._project = labels, tower.project
        self._text = torch.nn.functional.normalize(torch.cat(rows).float())

    def accuracy(self, pooled: np.ndarray) -> float:
        """Return the share of images whose own category is the nearest.

        Shapes:
            pooled: (n, d), the backbone's output.
        """
        with torch.inference_mode():
            rows = torch.nn.functional.normalize(self._project(torch.from_numpy(pooled)))
            chosen = (rows @ self._text.T).argmax(dim=1).numpy()
        return float((chosen == self._labels).mean())

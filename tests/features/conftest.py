from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from likemind.backbones.base import Backbone
from likemind.features import embed as module
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = ["pooled", "first:mean"]


class Small(torch.nn.Module):
    """A network that is quick enough to be run hundreds of times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 6, 4, stride=4)
        self.last = torch.nn.Linear(6, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(pixels).relu().mean(dim=(2, 3))).relu() + 0.5


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A small network, small shards and small batches."""
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "BATCH", 2)
    torch.manual_seed(0)
    return Backbone("small", Small().eval(), Preprocessing(size=8), 5, {"architecture": "small"})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten small drawings."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 256, (10 + number, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG")
        (folder / f"{number:03d}.jpg").write_bytes(buffer.getvalue())
    return folder

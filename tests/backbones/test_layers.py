"""Layers inside a network, by hooks, against what timm itself gives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from likemind.backbones.layers import check_layers, folder_of, layer_outputs
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone


def pixels(size: int, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("timm/test_vit", weights="random")


def test_tokens_are_those_of_timm(vit: Backbone) -> None:
    module, batch = vit.module, pixels(160)
    last = len(module.blocks) - 1
    names = [f"blocks.{k}:{pooling}" for k in (0, last) for pooling in ("mean", "cls")]
    with torch.inference_mode():
        found = layer_outputs(module, batch, ["pooled", *names, "norm:cls"])
        expected = module.forward_intermediates(
            batch, indices=[0, last], output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        torch.testing.assert_close(found[0], module(batch), rtol=0, atol=0)
        torch.testing.assert_close(found[5], module.forward_features(batch)[:, 0], rtol=0, atol=0)
    for k, (patches, prefix) in enumerate(expected):
        torch.testing.assert_close(found[1 + 2 * k], patches.mean(dim=1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found[2 + 2 * k], prefix[:, 0], rtol=0, atol=0)


def test_registers_are_no_places() -> None:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    module = VisionTransformer(**size, class_token=False, reg_tokens=2, global_pool="avg", num_classes=0).eval()
    batch = pixels(32, 2)
    with torch.inference_mode():
        (found,) = layer_outputs(module, batch, ["norm:mean"])
        torch.testing.assert_close(found, module.forward_features(batch)[:, 2:].mean(dim=1), rtol=1e-6, atol=1e-6)
        with pytest.raises(LikemindError, match=r"'norm:cls' has the shape .*it has no class token, say mean"):
            layer_outputs(module, batch, ["norm:cls"])


@pytest.mark.parametrize(
    ("name", "layer", "axes"), [("test_resnet", "layer3", (2, 3)), ("test_efficientnet", "blocks.1", (2, 3))]
)
def test_maps_of_features_are_averaged_over_places(name: str, layer: str, axes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = load_backbone(name, weights="random", layer=f"{layer}:mean")
    batch, kept = pixels(160), []
    hook = backbone.module.get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2].clone()))
    with torch.inference_mode():
        found = backbone(batch)
    hook.remove()
    torch.testing.assert_close(found, kept[0].mean(dim=axes), rtol=1e-6, atol=1e-6)
    assert found.shape == (3, backbone.dim)


def test_maps_with_the_channels_last() -> None:
    torch.manual_seed(0)
    module = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1, 1, 1), embed_dim=24).eval()
    batch = pixels(224, 1)
    with torch.inference_mode():
        found, pooled = layer_outputs(module, batch, ["norm:mean", "pooled"])
    torch.testing.assert_close(found, pooled, rtol=1e-5, atol=1e-6)  # a swin is pooled so


def test_a_backbone_at_a_layer(vit: Backbone, tmp_path: Path) -> None:
    inner = load_backbone(vit, layer="blocks.1:mean")
    assert (inner.layer, inner.dim, inner.module) == ("blocks.1:mean", 64, vit.module)
    assert inner.fingerprint != vit.fingerprint
    assert inner.weights_hash == vit.weights_hash
    assert vit.fingerprints(["pooled", "blocks.1:mean"]) == [vit.fingerprint, inner.fingerprint]
    assert not any(module._forward_hooks for module in vit.module.modules())
    with pytest.raises(LikemindError, match=r"at the layer 'blocks.1:mean' cannot be saved: load it with"):
        save_backbone(inner, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("seventh", "has no layer 'seventh': choose 'pooled', or a module such as"),
        ("blocks.11:cls", "has no layer 'blocks.11:cls': .*'blocks.1"),
        (":cls", "has no layer ':cls'"),
        ("", "has no layer ''"),
        ("blocks.1:max", "the pooling 'max' is not known: choose cls or mean"),
        ("blocks.1", r"'blocks.1' has the shape \(1, 101, 64\): say NAME:cls or NAME:mean"),
        ("patch_embed.proj", r"has the shape \(1, 64, 10, 10\): say how it is pooled, such as NAME:mean"),
        ("patch_embed.proj:cls", "it has no class token, say mean"),
        ("fc_norm:cls", r"has the shape \(1, 64\): it needs no pooling, name it without"),
        ("blocks.1.attn.attn_drop:mean", "does not run the layer 'blocks.1.attn.attn_drop:mean' by itself"),
    ],
)
def test_layers_that_cannot_be(vit: Backbone, layer: str, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        load_backbone(vit, layer=layer)
    assert not any(module._forward_hooks for module in vit.module.modules())


def test_a_layer_that_is_a_row_already(vit: Backbone) -> None:
    batch = pixels(160)
    with torch.inference_mode():
        found, pooled = layer_outputs(vit.module, batch, ["fc_norm", "pooled"])
    torch.testing.assert_close(found, pooled, rtol=0, atol=0)


class Odd(torch.nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = torch.nn.Module()
        self.inner.forward = inner

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.inner(batch)
        return batch.mean(dim=(2, 3))


def test_outputs_of_other_kinds() -> None:
    batch = pixels(8)
    (found,) = layer_outputs(Odd(lambda x: (x[:, :, 0], "attention")), batch, ["inner:mean"])
    torch.testing.assert_close(found, batch[:, :, 0].mean(dim=1))
    for output in (SimpleNamespace(), None, (), torch.zeros(()), torch.zeros(2, 4)):
        with pytest.raises(LikemindError, match="'inner' returns no row an image"):
            layer_outputs(Odd(lambda _, output=output: output), batch, ["inner"])
    with pytest.raises(LikemindError, match="only tokens and maps of features can be pooled"):
        layer_outputs(Odd(lambda x: x[:, None]), batch, ["inner:mean"])


def test_what_a_later_module_writes_into_is_kept_as_it_was() -> None:
    class Overwrites(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Flatten()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.first(batch).zero_()

    batch = pixels(8)
    (found,) = layer_outputs(Overwrites(), batch, ["first"])
    assert found.abs().sum() > 0


def test_names_of_folders() -> None:
    assert [folder_of(name) for name in ("pooled", "blocks.10:cls", "a/../b")] == ["pooled", "blocks.10-cls", "a-..-b"]
    module = torch.nn.ModuleDict({"a-b": torch.nn.Identity(), "a": torch.nn.Identity()})
    for layers in (["pooled", "pooled"], ["a:b", "a-b"]):
        with pytest.raises(LikemindError, match="name one twice"):
            check_layers(module, layers)
    with pytest.raises(LikemindError, match="no layer is named"):
        check_layers(module, [])


def test_alignets_preprocessing_by_name(vit: Backbone) -> None:
    for name in ("test_vit", vit):
        backbone = load_backbone(name, weights="random", preprocessing="alignet")
        assert backbone.preprocessing == Preprocessing.alignet(160)
    assert backbone.fingerprint != vit.fingerprint
    own = Preprocessing(size=160)
    assert load_backbone(vit, preprocessing=own).preprocessing == own
    assert load_backbone(replace(vit, preprocessing=own), preprocessing=own).fingerprint != vit.fingerprint
    with pytest.raises(LikemindError, match="preprocessing 'clip' is not known: choose 'alignet'"):
        load_backbone(vit, preprocessing="clip")  # type: ignore[arg-type]

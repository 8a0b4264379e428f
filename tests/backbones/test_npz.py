"""Weights as Google's JAX code keeps them, written here from a module by the inverse of each transposition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_models import pixels, shake
from torch import nn

from likemind.backbones.timm import load_backbone, load_weights, save_backbone
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Arrays = dict[str, np.ndarray]


def dense(layer: nn.Linear) -> Arrays:
    return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}


def norm(layer: nn.LayerNorm) -> Arrays:
    return {"scale": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}


def parts(weight: torch.Tensor, bias: torch.Tensor, names: tuple[str, ...], heads: int) -> Arrays:
    """Queries, keys and values as Flax has them: kernels (width, heads, width a head), biases (heads, width a head)."""
    found = {}
    for name, w, b in zip(names, weight.detach().chunk(len(names)), bias.detach().chunk(len(names)), strict=True):
        found[f"{name}/kernel"] = w.T.reshape(w.shape[1], heads, -1).numpy()
        found[f"{name}/bias"] = b.reshape(heads, -1).numpy()
    return found


def out(layer: nn.Linear, heads: int) -> Arrays:
    weight = layer.weight.detach()
    return {"out/kernel": weight.T.reshape(heads, -1, len(weight)).numpy(), "out/bias": layer.bias.detach().numpy()}


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def block(part: Any) -> Arrays:
    heads = part.attn.num_heads
    attention = parts(part.attn.qkv.weight, part.attn.qkv.bias, ("query", "key", "value"), heads)
    return {
        **prefixed("LayerNorm_0", norm(part.norm1)),
        **prefixed("LayerNorm_1", norm(part.norm2)),
        **prefixed("MultiHeadDotProductAttention_0", attention | out(part.attn.proj, heads)),
        **prefixed("MlpBlock_0/Dense_0", dense(part.mlp.fc1)),
        **prefixed("MlpBlock_0/Dense_1", dense(part.mlp.fc2)),
    }


def pool(part: Any) -> Arrays:
    heads = part.num_heads
    attention = parts(part.q.weight, part.q.bias, ("query",), heads)
    attention |= parts(part.kv.weight, part.kv.bias, ("key", "value"), heads) | out(part.proj, heads)
    return {
        "probe": part.latent.detach().numpy(),
        **prefixed("LayerNorm_0", norm(part.norm)),
        **prefixed("MultiHeadDotProductAttention_0", attention),
        **prefixed("MlpBlock_0/Dense_0", dense(part.mlp.fc1)),
        **prefixed("MlpBlock_0/Dense_1", dense(part.mlp.fc2)),
    }


def big_vision(module: Any, *, stacked: bool = False) -> Arrays:
    """A big_vision checkpoint of a contrastive model, whose image tower is the module."""
    blocks = [block(part) for part in module.blocks]
    tower = {
        "embedding/kernel": module.patch_embed.proj.weight.detach().numpy().transpose(2, 3, 1, 0),
        "embedding/bias": module.patch_embed.proj.bias.detach().numpy(),
        "pos_embedding": module.pos_embed.detach().numpy(),
        **prefixed("Transformer/encoder_norm", norm(module.norm)),
        "head/kernel": np.ones((3, 3), np.float32),
    }
    if module.cls_token is not None:
        tower["cls"] = module.cls_token.detach().numpy()
    if module.attn_pool is not None:
        tower |= prefixed("MAPHead_0", pool(module.attn_pool))
    if stacked:
        together = {name: np.stack([part[name] for part in blocks]) for name in blocks[0]}
        tower |= prefixed("Transformer/encoderblock", together)
    else:
        for number, part in enumerate(blocks):
            tower |= prefixed(f"Transformer/encoderblock_{number}", part)
    return prefixed("params/img", tower) | {"params/t": np.ones(1), "params/txt/Embed_0/embedding": np.ones((4, 2))}


def siglip(depth: int = 3, heads: int = 4) -> Any:
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": depth, "num_heads": heads, "num_classes": 0}
    return shake(VisionTransformer(**shape, class_token=False, global_pool="map"))


@pytest.mark.parametrize("stacked", [False, True])
def test_every_value_arrives(stacked: bool, tmp_path: Path) -> None:
    module, empty = (
        siglip(),
        VisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=32,
            depth=3,
            num_heads=4,
            num_classes=0,
            class_token=False,
            global_pool="map",
        ),
    )
    np.savez(tmp_path / "siglip.npz", **big_vision(module, stacked=stacked))
    load_weights(empty, tmp_path / "siglip.npz")
    wanted = module.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in empty.state_dict().items())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(empty.eval()(x), module(x))


def test_a_backbone_of_them_has_the_gelu_of_jax_and_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = shake(timm.create_model("test_vit", num_classes=0, act_layer="gelu_tanh"))
    np.savez(tmp_path / "w.npz", **big_vision(module))
    backbone = load_backbone("timm/test_vit", weights=str(tmp_path / "w.npz"))
    plain = load_backbone("timm/test_vit", weights="random")
    plain.module.load_state_dict(backbone.module.state_dict())
    x = pixels(backbone)
    with torch.inference_mode():
        assert torch.equal(backbone(x), module(x))
        assert not torch.equal(plain(x), module(x))
    assert plain.fingerprint != backbone.fingerprint
    save_backbone(backbone, tmp_path / "b")
    again = load_backbone(str(tmp_path / "b"))
    assert again.fingerprint == backbone.fingerprint
    theirs = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        assert torch.equal(again(x), module(x))
        assert torch.equal(theirs(x), module(x))


def _drop(word: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: value for name, value in arrays.items() if word not in name}


def _add(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: np.ones(3, np.float32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop("encoderblock_2/"), "does not fit the backbone .*encoderblock_2"),
        (_drop("probe"), "does not fit the backbone .*probe"),
        (_add("params/img/surprise"), "holds 'params/img/surprise', which this backbone has no place for"),
        (_add("params/img/cls"), "holds 'params/img/cls', which this backbone has no place for"),
        (
            _add("params/img/Transformer/encoderblock_3/LayerNorm_0/scale"),
            "holds 'params/img/Transformer/encoderblock_3",
        ),
        (_add("surprise"), "holds 'surprise', which"),
        (_drop("embedding/kernel"), "holds no vision transformer of JAX's layout"),
    ],
)
def test_a_file_of_another_model_is_refused(change: Callable[[Arrays], Arrays], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **change(big_vision(siglip())))
    with pytest.raises(LikemindError, match=words) as error:
        load_weights(siglip(), tmp_path / "w.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stacked", [False, True])
def test_other_heads_and_a_deeper_stack_are_seen(stacked: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **big_vision(siglip(), stacked=stacked))
    with pytest.raises(LikemindError, match="the backbone has 3 blocks of 8 heads"):
        load_weights(siglip(heads=8), tmp_path / "w.npz")
    with pytest.raises(LikemindError, match="the backbone has 2 blocks" if stacked else "holds .*encoderblock_2"):
        load_weights(siglip(depth=2), tmp_path / "w.npz")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="does not exist: check --weights"):
        load_backbone("test_vit", weights=str(tmp_path / "nowhere.npz"))
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(LikemindError, match=r"w\.npz is not a readable \.npz file"):
        load_backbone("test_vit", weights=str(tmp_path / "w.npz"))
    np.savez(tmp_path / "evil.npz", **{"embedding/kernel": np.array([object()])})
    with pytest.raises(LikemindError, match=r"holds|lacks|does not fit|not a readable") as error:
        load_backbone("test_vit", weights=str(tmp_path / "evil.npz"))
    assert "\n" not in str(error.value)
    np.savez(tmp_path / "w.npz", **big_vision(siglip()))
    with pytest.raises(LikemindError, match="which only timm's vision transformers read"):
        load_backbone("test_resnet", weights=str(tmp_path / "w.npz"))

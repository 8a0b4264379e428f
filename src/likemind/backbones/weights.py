"""Files of weights, read so that no code in them runs."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


TANH = {"act_layer": "gelu_tanh"}
"""What JAX means by GELU, as an argument of timm's models, whose own default is the exact one."""


def reason(error: Exception) -> str:
    """Return what an exception says, on one line of at most 200 letters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:199] + "…"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: ``.safetensors``, or what ``torch.save`` wrote, tensors alone.

    Raises:
        LikemindError: The file is missing, damaged, or holds more than tensors.
    """
    from safetensors.torch import load_file

    if not path.exists():
        raise LikemindError(f"{path} does not exist: check --weights")
    safe = path.suffix == ".safetensors"
    try:
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise LikemindError(
            f"{path} is damaged or holds more than tensors, and is not loaded: convert it to .safetensors"
        ) from None
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever the reader stumbles over
        raise LikemindError(f"{path} is not a readable file of weights ({reason(error)}): fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LikemindError(f"{path} is not a plain table of tensors: save the model's state_dict() by itself")
    return state


def plain_state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return a module's state dict as safetensors wants it: on the CPU, contiguous, nothing shared."""
    return {prefix + name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}


_PREFIX = re.compile(r"(params/img/|params/|opt/target/|)embedding/kernel")
_BLOCK = re.compile(r"Transformer/encoderblock(?:_(\d+))?/")
_KNOWN = re.compile(
    r"embedding/(kernel|bias)|cls|pos_embedding|Transformer/posembed_input/pos_embedding"
    r"|Transformer/encoder_norm/(scale|bias)"
    r"|(Transformer/encoderblock(_\d+)?/|MAPHead_0/)"
    r"(LayerNorm_\d/(scale|bias)|MlpBlock_\d/Dense_[01]/(kernel|bias)|probe"
    r"|MultiHeadDotProductAttention_\d/(query|key|value|out)/(kernel|bias))"
)
_UNUSED = re.compile(r"(head|pre_logits)/(kernel|bias)")
_BESIDE = re.compile(r"params/(txt/.*|t|b)|(opt|chrono)/.*")


def load_npz(module: nn.Module, path: Path) -> None:
    """Load a vision transformer's weights as Google's JAX code keeps them (big_vision, augreg) into timm's module.

    timm's own reader does the work. Beyond it, every tensor of the module must get a value, and every entry of the
    file must be one that is read, but for a classifier, a text tower and the optimiser's state.

    Source:
        https://github.com/google-research/big_vision, and timm's ``VisionTransformer.load_pretrained``.

    Raises:
        LikemindError: The file is missing, damaged, or not this model's.
    """
    if not path.exists():
        raise LikemindError(f"{path} does not exist: check --weights")
    if not hasattr(module, "load_pretrained"):
        raise LikemindError(f"{path} is of JAX's layout, which only timm's vision transformers read: choose one")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            small = {name: file[name] for name in names if name.endswith(("LayerNorm_0/scale", "_0/query/bias"))}
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever numpy stumbles over
        raise LikemindError(f"{path} is not a readable .npz file ({reason(error)}): fetch it again") from None
    _check_names(names, module, path)
    _check_shape(small, module, path)
    try:
        _fill(module, path)
    except Exception as error:  # noqa: BLE001 - timm raises whatever it stumbles over
        told = f"it lacks {error}" if isinstance(error, KeyError) else reason(error)
        raise LikemindError(
            f"{path} does not fit the backbone ({told}): check that both are of the same architecture"
        ) from None


def _check_names(names: list[str], module: Any, path: Path) -> None:
    found = next((match for match in map(_PREFIX.fullmatch, names) if match), None)
    if found is None:
        raise LikemindError(f"{path} holds no vision transformer of JAX's layout (no embedding/kernel): check it")
    prefix, depth = found[1], len(module.blocks)
    pooled = getattr(module, "attn_pool", None) is not None
    for name in names:
        short = name.removeprefix(prefix)
        block = _BLOCK.match(short)
        deeper = bool(block and block[1] and int(block[1]) >= depth)
        stray = short.startswith("MAPHead_0/") and not pooled
        token = short == "cls" and module.cls_token is None
        known = name.startswith(prefix) and (_KNOWN.fullmatch(short) or _UNUSED.fullmatch(short))
        if deeper or stray or token or not (known or _BESIDE.fullmatch(name)):
            raise LikemindError(
                f"{path} holds {name!r}, which this backbone has no place for: check that both are of the same "
                "architecture"
            )


def _check_shape(small: dict[str, np.ndarray], module: Any, path: Path) -> None:
    """See what timm's reader does not: how many heads, and how many blocks where they are stacked in one array."""
    heads, depth = module.blocks[0].attn.num_heads, len(module.blocks)
    for name, value in small.items():
        stacked = "Transformer/encoderblock/" in name
        if (stacked and len(value) != depth) or (name.endswith("bias") and value.shape[-2] != heads):
            raise LikemindError(
                f"{path} holds {name!r} of shape {value.shape}, but the backbone has {depth} blocks of {heads} heads: "
                "check that both are of the same architecture"
            )


def _fill(module: Any, path: Path) -> None:
    """Let timm copy the values over ones that are no numbers, so that what it leaves out is seen."""
    with torch.no_grad():
        for value in module.parameters():
            value.fill_(torch.nan)
        module.load_pretrained(str(path))
    left = [name for name, value in module.named_parameters() if value.isnan().any()]
    if left:
        raise ValueError(f"no value for {left[0]}")

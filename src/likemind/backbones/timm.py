"""Backbones from timm: local folders, files of weights, or the Hub."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from likemind.artifacts import read_json, write_atomic, write_json
from likemind.backbones.base import Backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from likemind.artifacts import PathLike


def load_backbone(
    name: str | Backbone,
    *,
    weights: str | None = None,
    layer: str = "pooled",
    preprocessing: Preprocessing | None = None,
) -> Backbone:
    """Load a vision model as a backbone.

    Args:
        name: ``timm/NAME`` (or NAME alone) for any timm model, or a folder that timm can read (``config.json`` and
            ``model.safetensors``), such as the ``backbone/`` of an aligned student.
        weights: A ``.safetensors`` or ``.pth`` file of the model's own weights; ``random`` for none; the Hub's if None.
        layer: ``pooled``, the model's pooled output before any classifier.
        preprocessing: Instead of the model's own.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        LikemindError: No such model (near names are suggested), or its weights cannot be had.

    Example:
        >>> load_backbone("timm/test_vit", weights="random").dim
        64
    """
    if isinstance(name, Backbone):
        return name
    if layer != "pooled":
        raise LikemindError(f"layer {layer!r} is not known: choose 'pooled'")
    folder = Path(name)
    if (folder / "backbone" / "config.json").exists():
        folder = folder / "backbone"
    module = _from_folder(folder) if (folder / "config.json").exists() else _from_name(name, weights)
    module.eval()
    found = preprocessing or _preprocessing(module)
    config = {"architecture": module.pretrained_cfg["architecture"], "pretrained_cfg": _plain(module.pretrained_cfg)}
    return Backbone(name=str(name), module=module, preprocessing=found, dim=int(module.num_features), config=config, layer=layer)


def _from_folder(folder: Path) -> Any:
    import timm

    architecture = read_json(folder / "config.json").get("architecture", "")
    _check_name(str(architecture))
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except (RuntimeError, FileNotFoundError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise LikemindError(f"{folder} does not hold the weights of a {architecture} ({reason}): save it again") from None


def _check_name(architecture: str) -> None:
    import timm

    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise LikemindError(f"there is no backbone {architecture!r}: {hint}")


def _from_name(name: str, weights: str | None) -> Any:
    import timm

    if name.startswith((".", "/")) or Path(name).is_dir():
        raise LikemindError(f"{name} holds no backbone (no config.json): point at a folder that timm can read")
    plain = name.removeprefix("timm/")
    _check_name(plain.split(".")[0])
    try:
        module = timm.create_model(plain, pretrained=weights is None, num_classes=0)
    except RuntimeError as error:
        if weights is None:
            raise _unreachable(plain, error) from None
        near = ", ".join(timm.list_pretrained(plain.split(".")[0] + "*")[:3])
        raise LikemindError(f"backbone {plain!r} cannot be made ({error}): known are {near}") from None
    except (OSError, ValueError) as error:
        raise _unreachable(plain, error) from None
    if weights not in (None, "random"):
        load_weights(module, Path(str(weights)))
    return module


def _unreachable(name: str, error: Exception) -> LikemindError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return LikemindError(
        f"the pretrained weights of {name} cannot be fetched ({reason}): check the network, or pass --weights FILE or a local folder"
    )


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into a module, strictly but for the classifier; no code in the file is run.

    Raises:
        LikemindError: The file is missing, unsafe, or not this model's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise LikemindError(f"{path} does not exist: check --weights")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise LikemindError(f"{path} is not a readable file of weights ({str(error).splitlines()[0]}): fetch it again") from None
    except Exception as error:  # pickle errors have no common type; whatever it is, nothing of it was run
        if type(error).__name__ != "UnpicklingError":
            raise
        raise LikemindError(f"{path} holds more than tensors and is not loaded: convert it to .safetensors") from None
    wanted = module.state_dict()
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith(("classifier.", "head.", "fc."))}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise LikemindError(f"{path} does not fit the backbone ({reason}): check that both are of the same architecture") from None


def _preprocessing(module: Any) -> Preprocessing:
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(module)
    if data["input_size"][1] != data["input_size"][2]:
        raise LikemindError(f"the backbone wants a {data['input_size'][1]}×{data['input_size'][2]} input: only square ones are supported")
    return Preprocessing(
        size=data["input_size"][1],
        resize="squash" if data["crop_mode"] == "squash" else "crop",
        crop_share=data["crop_pct"],
        interpolation="bilinear" if data["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if value is not None and key not in ("file", "url", "source", "hf_hub_id")}
    return dict(json.loads(json.dumps(kept)))


def save_backbone(backbone: Backbone, folder: PathLike) -> None:
    """Write a backbone so that plain timm loads it: ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)``."""
    from safetensors.torch import save

    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.module.state_dict().items()}
    write_atomic(where / "model.safetensors", save(state, metadata={"format": "pt"}))
    recipe = backbone.preprocessing
    pretrained = backbone.config["pretrained_cfg"] | {
        "input_size": [3, recipe.size, recipe.size],
        "crop_pct": recipe.crop_share,
        "crop_mode": "squash" if recipe.resize == "squash" else "center",
        "interpolation": recipe.interpolation,
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "num_classes": 0,
    }
    config = {
        "architecture": backbone.config["architecture"],
        "num_classes": 0,
        "num_features": backbone.dim,
        "pretrained_cfg": pretrained,
    }
    write_json(where / "config.json", config)

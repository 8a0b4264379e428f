"""Backbones from timm: local folders, files of weights, or the Hub."""

from __future__ import annotations

import difflib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError

from likemind.artifacts import read_json, write_atomic, write_json
from likemind.backbones.base import Backbone
from likemind.backbones.layers import POOLED, check_layers, layer_outputs
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from likemind.artifacts import PathLike


def load_backbone(
    name: str | Backbone,
    *,
    weights: str | None = None,
    layer: str = POOLED,
    preprocessing: Preprocessing | Literal["alignet"] | None = None,
) -> Backbone:
    """Load a vision model as a backbone.

    Args:
        name: ``timm/NAME`` (or NAME alone) for any timm model, or a folder that timm can read (``config.json`` and
            ``model.safetensors``), such as the ``backbone/`` of an aligned student.
        weights: A ``.safetensors`` or ``.pth`` file of the model's own weights; ``random`` for none; the Hub's if None.
        layer: ``pooled``, the model's pooled output before any classifier, or a module's output as ``NAME:cls`` (the
            class token), ``NAME:mean`` (over tokens or places) or ``NAME`` (where it is a row an image already), such
            as ``blocks.10:mean``.
        preprocessing: Instead of the model's own; ``alignet`` is ``Preprocessing.alignet()`` at the model's size.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        LikemindError: No such model (near names are suggested), or its weights cannot be had.

    Example:
        >>> load_backbone("timm/test_vit", weights="random").dim
        64
    """
    if isinstance(name, Backbone):
        return _changed(name, layer, preprocessing)
    folder = Path(name)
    if (folder / "backbone" / "config.json").exists():
        folder = folder / "backbone"
    saved = _saved(folder)
    module = _from_name(name, weights) if saved is None else _from_folder(folder, saved, weights)
    module.eval()
    given = preprocessing if isinstance(preprocessing, Preprocessing) else None
    backbone = Backbone(
        name=str(name),
        module=module,
        preprocessing=given or _saved_preprocessing(folder, saved) or _preprocessing(module),
        dim=int(getattr(module, "head_hidden_size", module.num_features)),
        config={"architecture": module.pretrained_cfg["architecture"], "pretrained_cfg": _plain(module.pretrained_cfg)},
    )
    return _changed(backbone, layer, preprocessing)


def _changed(backbone: Backbone, layer: str, preprocessing: Preprocessing | str | None) -> Backbone:
    """Return the backbone at another layer, or with another preprocessing, where these are asked for."""
    if isinstance(preprocessing, str):
        if preprocessing != "alignet":
            raise LikemindError(f"preprocessing {preprocessing!r} is not known: choose 'alignet', or give your own")
        preprocessing = Preprocessing.alignet(backbone.preprocessing.size)
    if preprocessing not in (None, backbone.preprocessing):
        backbone = replace(backbone, preprocessing=preprocessing)
    if layer in (POOLED, backbone.layer):
        return backbone
    check_layers(backbone.module, [layer])
    size = backbone.preprocessing.size
    parameter = next(backbone.module.parameters(), torch.empty(0))
    with torch.inference_mode():
        trial = layer_outputs(backbone.module, parameter.new_zeros(1, 3, size, size), [layer])[0]
    return replace(backbone, layer=layer, dim=trial.shape[1])


def _saved(folder: Path) -> dict[str, Any] | None:
    """Return the ``config.json`` of a folder that timm can read; None if there is none."""
    if not (folder / "config.json").exists():
        return None
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise LikemindError(
            f"{folder / 'config.json'} names no timm architecture: point at a folder that timm can read"
        )
    return config


def _from_folder(folder: Path, config: dict[str, Any], weights: str | None) -> Any:
    import timm

    _check_name(config["architecture"])
    if weights is None and not (folder / "model.safetensors").exists():
        raise LikemindError(f"{folder} holds no model.safetensors: save it again, or convert its weights")
    try:
        module = timm.create_model(f"local-dir:{folder}", pretrained=weights is None, num_classes=0)
    except Exception as error:  # noqa: BLE001 - on files that do not fit, timm raises whatever it stumbles over
        raise LikemindError(
            f"{folder} does not hold the weights of a {config['architecture']} ({_reason(error)}): save it again"
        ) from None
    return _with_weights(module, weights)


def _with_weights(module: Any, weights: str | None) -> Any:
    if weights not in (None, "random"):
        load_weights(module, Path(str(weights)))
    return module


def _check_name(name: str) -> None:
    """Refuse a name that timm does not know, without asking the network."""
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise LikemindError(f"there is no backbone {name!r}: {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or f"{architecture} alone"
        raise LikemindError(f"there are no pretrained weights {name!r}: known are {tags}") from None


def _from_name(name: str, weights: str | None) -> Any:
    import timm

    if name.startswith((".", "/")) or Path(name).is_dir():
        raise LikemindError(f"{name} holds no backbone (no config.json): point at a folder that timm can read")
    plain = name.removeprefix("timm/")
    _check_name(plain)
    if weights is None and not timm.is_model_pretrained(plain):
        raise LikemindError(f"nobody has published weights of {plain}: pass --weights FILE, or choose another")
    try:
        module = timm.create_model(plain, pretrained=weights is None, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        raise LikemindError(
            f"the pretrained weights of {plain} cannot be fetched ({_reason(error)}): "
            "check the network, or pass --weights FILE or a local folder"
        ) from None
    return _with_weights(module, weights)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:199] + "…"


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into a module, strictly but for the classifier; no code in the file is run.

    Raises:
        LikemindError: The file is missing, unsafe, or not this model's.
    """
    state = _read_weights(path)
    wanted = module.state_dict()
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = {"classifier", "head", "fc", *([named] if isinstance(named, str) else named)}
    unused = tuple(f"{head}." for head in heads)
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith(unused)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise LikemindError(
            f"{path} does not fit the backbone ({_reason(error)}): check that both are of the same architecture"
        ) from None


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
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
        raise LikemindError(f"{path} is not a readable file of weights ({_reason(error)}): fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LikemindError(f"{path} is not a plain table of tensors: save the model's state_dict() by itself")
    return state


def _saved_preprocessing(folder: Path, saved: dict[str, Any] | None) -> Preprocessing | None:
    """Return the preprocessing that ``save_backbone`` wrote beside timm's own fields, which cannot tell all of it."""
    if saved is None or "preprocessing" not in saved:
        return None
    try:
        return Preprocessing.model_validate(saved["preprocessing"])
    except ValidationError:
        raise LikemindError(f"{folder / 'config.json'}: preprocessing is not valid; save it again") from None


def _preprocessing(module: Any) -> Preprocessing:
    from timm.data import config as timm_config

    resolve: Callable[[Any], dict[str, Any]] = timm_config.resolve_model_data_config
    data = resolve(module)
    _, height, width = data["input_size"]
    if height != width or data["crop_mode"] == "border":
        raise LikemindError(
            f"the backbone wants a {width}×{height} input, {data['crop_mode']}: only square ones without a border are "
            "known; pass a Preprocessing"
        )
    try:
        return Preprocessing(
            size=height,
            resize="squash" if data["crop_mode"] == "squash" else "crop",
            crop_share=data["crop_pct"],
            interpolation=data["interpolation"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise LikemindError(
            f"the backbone's preprocessing is not known ({'.'.join(map(str, first['loc']))}: {first['msg'].lower()}): "
            "pass a Preprocessing"
        ) from None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    ours = ("file", "url", "source", "hf_hub_id")
    kept = {key: value for key, value in config.items() if value is not None and key not in ours}
    return dict(json.loads(json.dumps(kept)))


def save_backbone(backbone: Backbone, folder: PathLike) -> None:
    """Write a backbone so that plain timm loads it.

    ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)`` gives the module.

    Raises:
        LikemindError: It is taken at a layer inside the network, which timm's files cannot tell.
    """
    if backbone.layer != POOLED:
        raise LikemindError(f"a backbone at the layer {backbone.layer!r} cannot be saved: load it with layer='pooled'")
    from safetensors.torch import save

    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in backbone.module.state_dict().items()}
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
        "preprocessing": recipe.model_dump(mode="json"),
    }
    write_json(where / "config.json", config)

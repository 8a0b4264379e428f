"""Backbones: of timm here (local folders, files of weights, the Hub), of other libraries by their adapters."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError

from likemind.artifacts import read_json, write_atomic, write_json
from likemind.backbones.base import Backbone
from likemind.backbones.layers import OWN, POOLED, check_layers, layer_outputs
from likemind.backbones.libraries import load_other, save_other
from likemind.backbones.names import SHORT_NAMES
from likemind.backbones.weights import TANH, load_npz, plain_state, read_weights, reason
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from likemind.artifacts import PathLike


def load_backbone(
    name: str | nn.Module | Backbone,
    *,
    weights: str | None = None,
    layer: str = POOLED,
    preprocessing: Preprocessing | Literal["alignet"] | None = None,
) -> Backbone:
    """Load a vision model as a backbone.

    Args:
        name: ``timm/NAME`` (or NAME alone) for any timm model; one of the short names of the paper's students
            (``vit-s``, ``vit-b``, ``vit-l``, ``dinov1-b``, ``dinov2-b``, ``siglip-b``, ``siglip2-b``, ``clip-b``);
            ``hf/ORG/NAME`` or ``hf/ORG/NAME@REVISION`` for a vision model of transformers; ``open_clip/MODEL:TAG``; a
            folder that one of the three can read, such as the ``backbone/`` of an aligned student; or a module of your
            own.
        weights: A ``.safetensors`` or ``.pth`` file of the model's own weights, for timm's vision transformers also a
            ``.npz`` of big_vision; ``random`` for none; the Hub's if None.
        layer: ``pooled``, the model's pooled output before any classifier or projection; for CLIP and SigLIP of
            transformers and open_clip also ``projected``, the space shared with text. Or a module's output as
            ``NAME:cls`` (the class token), ``NAME:mean`` (over tokens or places) or ``NAME`` (where it is a row an
            image already), such as ``blocks.10:mean``.
        preprocessing: Instead of the model's own; ``alignet`` is ``Preprocessing.alignet()`` at the model's size. A
            module of your own has none.

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
    given = preprocessing if isinstance(preprocessing, Preprocessing) else None
    own = layer if layer in OWN else POOLED
    other = load_other(name, weights=weights, layer=own, preprocessing=given)
    backbone = _of_timm(str(name), weights, given) if other is None else other
    return _changed(backbone, layer, preprocessing)


def _of_timm(name: str, weights: str | None, preprocessing: Preprocessing | None) -> Backbone:
    folder = Path(name)
    if (folder / "backbone" / "config.json").exists():
        folder = folder / "backbone"
    saved = _saved(folder)
    known = SHORT_NAMES.get(name) if saved is None else None
    arguments = (known.arguments if known else {}) | (TANH if str(weights).endswith(".npz") else {})
    if saved is not None:
        module = _from_folder(folder, saved, weights, arguments)
        arguments = {
            key: value for key, value in saved.get("model_args", {}).items() if key != "num_classes"
        } | arguments
    else:
        module = _from_name(known.name if known else name, weights, arguments)
    module.eval()
    found = preprocessing or _saved_preprocessing(folder, saved) or _preprocessing(module)
    if known and not preprocessing:
        found = found.model_copy(update=known.preprocessing)
    return Backbone(
        name=name,
        module=module,
        preprocessing=found,
        dim=int(getattr(module, "head_hidden_size", module.num_features)),
        config={
            "architecture": module.pretrained_cfg["architecture"],
            "pretrained_cfg": _plain(module.pretrained_cfg),
            **({"model_args": arguments} if arguments else {}),
        },
    )


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
    check_layers(backbone, [layer])
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
    if not isinstance(config.get("model_args", {}), dict):
        raise LikemindError(f"{folder / 'config.json'}: model_args is no table of arguments; save it again")
    return config


def _from_folder(folder: Path, config: dict[str, Any], weights: str | None, arguments: dict[str, Any]) -> Any:
    import timm

    _check_name(config["architecture"])
    if weights is None and not (folder / "model.safetensors").exists():
        raise LikemindError(f"{folder} holds no model.safetensors: save it again, or convert its weights")
    try:
        module = timm.create_model(f"local-dir:{folder}", pretrained=weights is None, num_classes=0, **arguments)
    except Exception as error:  # noqa: BLE001 - on files that do not fit, timm raises whatever it stumbles over
        raise LikemindError(
            f"{folder} does not hold the weights of a {config['architecture']} ({reason(error)}): save it again"
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
        hint += f" (or one of {', '.join(SHORT_NAMES)}, hf/ORG/NAME, open_clip/MODEL:TAG)"
        raise LikemindError(f"there is no backbone {name!r}: {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or f"{architecture} alone"
        raise LikemindError(f"there are no pretrained weights {name!r}: known are {tags}") from None


def _from_name(name: str, weights: str | None, arguments: dict[str, Any]) -> Any:
    import timm

    if name.startswith((".", "/")) or Path(name).is_dir():
        raise LikemindError(f"{name} holds no backbone (no config.json): point at a folder that timm can read")
    plain = name.removeprefix("timm/")
    _check_name(plain)
    if weights is None and not timm.is_model_pretrained(plain):
        raise LikemindError(f"nobody has published weights of {plain}: pass --weights FILE, or choose another")
    try:
        module = timm.create_model(plain, pretrained=weights is None, num_classes=0, **arguments)
    except (RuntimeError, OSError, ValueError) as error:
        raise LikemindError(
            f"the pretrained weights of {plain} cannot be fetched ({reason(error)}): "
            "check the network, or pass --weights FILE or a local folder"
        ) from None
    return _with_weights(module, weights)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into a module, strictly but for the classifier; no code in the file is run.

    Raises:
        LikemindError: The file is missing, unsafe, or not this model's.
    """
    if path.suffix == ".npz":
        return load_npz(module, path)
    state = read_weights(path)
    wanted = module.state_dict()
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = {"classifier", "head", "fc", *([named] if isinstance(named, str) else named)}
    unused = tuple(f"{head}." for head in heads)
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith(unused)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise LikemindError(
            f"{path} does not fit the backbone ({reason(error)}): check that both are of the same architecture"
        ) from None
    return None


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
    """Write a backbone in the files of the library that it came from, so that it loads there without us.

    For timm, ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)`` gives the module.

    Raises:
        LikemindError: It is taken at a layer inside the network, which these files cannot tell.
    """
    if backbone.layer not in OWN:
        raise LikemindError(f"a backbone at the layer {backbone.layer!r} cannot be saved: load it with layer='pooled'")
    from safetensors.torch import save

    where = Path(folder)
    if backbone.library != "timm":
        return save_other(backbone, where)
    where.mkdir(parents=True, exist_ok=True)
    write_atomic(where / "model.safetensors", save(plain_state(backbone.module), metadata={"format": "pt"}))
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
    if "model_args" in backbone.config:
        config["model_args"] = backbone.config["model_args"]
    return write_json(where / "config.json", config)

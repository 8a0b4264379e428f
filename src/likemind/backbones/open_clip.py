"""Backbones from open_clip: the vision tower of a CLIP, whose text tower is kept as it is."""

from __future__ import annotations

import contextlib
import difflib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from likemind.artifacts import read_json, write_atomic, write_json
from likemind.backbones.base import Backbone
from likemind.backbones.saved import ADAPTER, inner, read_saved, write_saved
from likemind.backbones.weights import plain_state, reason
from likemind.errors import LikemindError
from likemind.hashes import key_of
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class Tower(nn.Module):
    """A vision tower of open_clip.

    Attributes:
        visual: The tower as open_clip has it; for ``pooled`` without its projection.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embedding, (n, d), of pixels (n, 3, size, size)."""
        found: Tensor = self.visual(pixels)
        return found


def load(name: str, *, weights: str | None, layer: str, preprocessing: Preprocessing | None) -> Backbone:
    """Load the vision tower of a CLIP.

    The embedding ``pooled`` is the tower's pooled output before the projection, ``projected`` the space shared with
    text. Where pooling is the projection (ResNets), or there is none (SigLIP), both are the same.

    Args:
        name: ``open_clip/MODEL:TAG``, or a folder with ``open_clip_config.json``.
        weights: A file of the whole model's weights; ``random``; the tag's or the folder's if None.
        layer: ``pooled`` or ``projected``.
        preprocessing: Instead of open_clip's own.

    Raises:
        LikemindError: open_clip is not installed, there is no such model or tag, or its weights cannot be had.
    """
    try:
        import open_clip  # noqa: F401
    except ImportError:
        raise LikemindError(
            "this backbone needs the package open_clip_torch: pip install 'likemind[openclip]'"
        ) from None
    plain = name.removeprefix("open_clip/")
    folder = _folder(plain)
    saved = read_saved(folder) if folder and (folder / ADAPTER).exists() else None
    layer = saved.layer if saved and layer == "pooled" else layer
    if layer not in ("pooled", "projected"):
        raise LikemindError(f"layer {layer!r} is not known for open_clip: choose 'pooled' or 'projected'")
    model, config = _from_folder(folder, weights) if folder else _from_name(plain, weights)
    found = preprocessing or (saved.preprocessing if saved else _preprocessing(model.visual.preprocess_cfg, name))
    model.visual.output_tokens = False
    module = Tower(model.visual).float().eval()
    dim = _width(model.visual)
    kept: dict[str, Tensor] = {}
    if layer == "pooled":
        dim, kept = _without_projection(model.visual, dim)
    text = {key: value for key, value in plain_state(model).items() if not key.startswith("visual.")}
    about = {
        "library": "open_clip",
        "class": type(model.visual).__name__,
        "architecture": f"open_clip/{key_of(**config)[:16]}",
        "snippet": _snippet(model.visual, layer),
        "model_cfg": config,
        "rest": text | kept,
    }
    return Backbone(name, module, found, dim, about, layer)


def save(backbone: Backbone, folder: Path) -> None:
    """Write the whole model, its text tower untouched, so that open_clip loads it without us.

    ``open_clip.create_model_from_pretrained("local-dir:FOLDER")`` gives model and transform.
    """
    from safetensors.torch import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    state = {**plain_state(backbone.module), **backbone.config["rest"]}
    write_atomic(folder / _WEIGHTS, to_bytes(state, metadata={"format": "pt"}))
    recipe = backbone.preprocessing
    seen = {
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "interpolation": recipe.interpolation,
        "resize_mode": "squash" if recipe.resize == "squash" else "shortest",
    }
    write_json(folder / _CONFIG, {"model_cfg": backbone.config["model_cfg"], "preprocess_cfg": seen})
    write_saved(backbone, folder)


def _folder(name: str) -> Path | None:
    folder = inner(Path(name))
    if (folder / _CONFIG).exists():
        return folder
    if name.startswith((".", "/")):
        raise LikemindError(f"{name} holds no {_CONFIG}: point at a folder that open_clip can read")
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's log and warnings: what they say is looked at and said by us."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _create(name: str, source: str, **arguments: Any) -> Any:
    import open_clip

    try:
        with _quiet():
            return open_clip.create_model(
                name, precision="fp32", weights_only=True, pretrained_text=False, pretrained_image=False, **arguments
            )
    except Exception as error:  # noqa: BLE001 - on files that do not fit, open_clip raises whatever it stumbles over
        raise LikemindError(
            f"{source} cannot be loaded by open_clip ({reason(error)}): check the file, or the name and the network"
        ) from None


def _from_folder(folder: Path, weights: str | None) -> tuple[Any, dict[str, Any]]:
    about = read_json(folder / _CONFIG)
    config = about.get("model_cfg") if isinstance(about, dict) else None
    if not isinstance(config, dict):
        raise LikemindError(f"{folder / _CONFIG} has no model_cfg: save it again")
    given = _given(folder, weights)
    model = _create(f"local-dir:{folder}", str(given or folder), load_weights=False)
    if given is not None:
        _fill(model, given)
    return model, config


def _given(folder: Path, weights: str | None) -> Path | None:
    if weights is not None:
        return None if weights == "random" else Path(weights)
    known = (_WEIGHTS, "open_clip_pytorch_model.bin")
    found = next((folder / name for name in known if (folder / name).exists()), None)
    if found is None:
        raise LikemindError(f"{folder} holds no {_WEIGHTS}: save it again")
    return found


def _fill(model: Any, path: Path) -> None:
    from open_clip.factory import load_checkpoint

    if not path.exists():
        raise LikemindError(f"{path} does not exist: check --weights")
    try:
        with _quiet():
            load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # noqa: BLE001 - on files that do not fit, open_clip raises whatever it stumbles over
        raise LikemindError(
            f"{path} does not hold the weights of this CLIP ({reason(error)}): check that both are of the same kind"
        ) from None


def _from_name(name: str, weights: str | None) -> tuple[Any, dict[str, Any]]:
    import open_clip

    kind, _, tag = name.partition(":")
    config = open_clip.get_model_config(kind)
    if config is None:
        near = difflib.get_close_matches(kind, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() lists them"
        raise LikemindError(f"open_clip has no model {kind!r}: {hint}")
    if tag:
        _check_tag(kind, tag, config)
    if weights is None and not tag:
        raise LikemindError(f"open_clip/{kind} names no weights: write open_clip/{kind}:TAG, or pass --weights FILE")
    fetched = {"pretrained": tag} if weights is None else {"load_weights": False}
    model = _create(kind, f"open_clip/{name}", **fetched)
    if weights not in (None, "random"):
        _fill(model, Path(str(weights)))
    return model, config


def _check_tag(kind: str, tag: str, config: dict[str, Any]) -> None:
    """Refuse a tag that does not exist, or whose weights were trained with another activation."""
    from open_clip import pretrained

    known = pretrained.get_pretrained_cfg(kind, tag)
    if not known:
        tags = ", ".join(pretrained.list_pretrained_tags_by_model(kind)) or "none"
        raise LikemindError(f"open_clip has no weights {tag!r} of {kind}: known are {tags}")
    if known.get("quick_gelu", False) and not config.get("quick_gelu", False):
        raise LikemindError(
            f"the weights {tag!r} of {kind} were trained with QuickGELU: choose open_clip/{kind}-quickgelu:{tag}"
        )


def _width(visual: Any) -> int:
    """Return the width of the space shared with text."""
    if hasattr(visual, "trunk"):
        layers = [layer for layer in visual.head.modules() if isinstance(layer, nn.Linear)]
        return int(layers[-1].out_features if layers else visual.trunk.num_features)
    return int(visual.output_dim)


def _without_projection(visual: Any, dim: int) -> tuple[int, dict[str, Tensor]]:
    """Take the projection off; return the width that is left, and what to save in its place."""
    if hasattr(visual, "trunk"):
        kept = plain_state(visual.head, "visual.head.")
        visual.head = nn.Identity()
        return int(visual.trunk.num_features), kept
    if getattr(visual, "proj", None) is None:
        return dim, {}
    kept = {"visual.proj": visual.proj.detach().cpu().clone()}
    width = int(visual.proj.shape[0])
    visual.proj = None
    return width, kept


def _snippet(visual: nn.Module, layer: str) -> str:
    """Return what a model card says of how to do without us."""
    before = {"VisionTransformer": "model.visual.proj = None", "TimmModel": "model.visual = model.visual.trunk"}
    change = before.get(type(visual).__name__) if layer == "pooled" else None
    lines = [
        "import open_clip",
        "",
        'model, transform = open_clip.create_model_from_pretrained("local-dir:FOLDER/backbone")',
        *([f"{change}  # the embedding before the projection"] if change else []),
        "embedding = model.eval().encode_image(pixels)",
    ]
    return "\n".join(lines)


def _preprocessing(seen: dict[str, Any], name: str) -> Preprocessing:
    size = seen["size"]
    sides = {size} if isinstance(size, int) else set(size)
    modes = {"shortest": "crop", "squash": "squash"}
    if len(sides) != 1 or seen["resize_mode"] not in modes or seen["interpolation"] not in ("bicubic", "bilinear"):
        raise LikemindError(
            f"{name}'s preprocessing is not known (size {size}, {seen['resize_mode']}, {seen['interpolation']}): "
            "pass a Preprocessing"
        )
    return Preprocessing(
        size=sides.pop(),
        resize=modes[seen["resize_mode"]],  # type: ignore[arg-type]
        crop_share=1.0,
        interpolation=seen["interpolation"],
        mean=tuple(seen["mean"]),
        std=tuple(seen["std"]),
    )

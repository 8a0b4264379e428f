"""transformers' image processors and open_clip's settings as a ``Preprocessing``, exactly or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from likemind.backbones.weights import reason
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone

_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


def preprocessing_of(folder: Path) -> Preprocessing:
    """Read a folder's ``preprocessor_config.json``, with the defaults of the class that it names.

    The pixels are those of the class's own call to PIL, to the last bits of float32. DINOv3's class scales float
    pixels with torchvision and does not round them to whole grey levels, so there they agree within one grey level.

    Raises:
        LikemindError: There is none, or it asks for something that ``Preprocessing`` cannot do.
    """
    from transformers import AutoImageProcessor

    if not any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
        raise LikemindError(f"{folder} holds no preprocessor_config.json: pass a Preprocessing")
    try:
        processor = AutoImageProcessor.from_pretrained(
            str(folder), backend="pil", local_files_only=True, trust_remote_code=False
        )
        fields = processor.to_dict()
    except Exception as error:  # noqa: BLE001 - on a damaged file, transformers raises whatever it stumbles over
        raise LikemindError(
            f"{folder}'s preprocessor_config.json cannot be read ({reason(error)}): pass a Preprocessing"
        ) from None
    return from_fields(fields, str(folder))


def from_fields(fields: dict[str, Any], where: str) -> Preprocessing:
    """Turn an image processor's fields into a ``Preprocessing``.

    Args:
        fields: As in ``preprocessor_config.json``, defaults included.
        where: What to call it in an error.

    Raises:
        LikemindError: It asks for something that ``Preprocessing`` cannot do; the field is named.
    """

    def refuse(what: str) -> LikemindError:
        return LikemindError(f"{where}'s preprocessing is not known ({what}): pass a Preprocessing")

    for name in ("do_resize", "do_rescale"):
        if not fields.get(name):
            raise refuse(f"{name} is off")
    if fields.get("do_pad"):
        raise refuse("do_pad is on")
    if abs(fields.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise refuse(f"rescale_factor is {fields['rescale_factor']}")
    if fields.get("resample") not in _FILTERS:
        raise refuse(f"resample is {fields.get('resample')}")
    try:
        shape = _shape(
            _sides(fields.get("size")), _sides(fields.get("crop_size")) if fields.get("do_center_crop") else None
        )
    except ValueError as error:
        raise refuse(str(error)) from None
    normal = bool(fields.get("do_normalize"))
    try:
        return Preprocessing(
            **shape,
            interpolation=_FILTERS[fields["resample"]],
            mean=tuple(fields["image_mean"]) if normal else (0.0, 0.0, 0.0),
            std=tuple(fields["image_std"]) if normal else (1.0, 1.0, 1.0),
            half_pixel="down",
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise refuse(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


def _sides(size: Any) -> dict[str, int]:
    """Return a size's named sides that are set."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {name: int(value) for name, value in dict(size or {}).items() if value is not None}


def _shape(size: dict[str, int], crop: dict[str, int] | None) -> dict[str, Any]:
    if size.keys() == {"height", "width"} and size["height"] == size["width"]:
        resize, scaled = "squash", size["height"]
    elif size.keys() == {"shortest_edge"}:
        resize, scaled = "crop", size["shortest_edge"]
    else:
        raise ValueError(f"size is {size}")
    if crop is None:
        if resize == "crop":
            raise ValueError("the shorter side is scaled and nothing is cropped, so that pictures are not square")
        return {"size": scaled, "resize": resize, "crop_share": 1.0}
    if crop.keys() != {"height", "width"} or crop["height"] != crop["width"] or crop["height"] > scaled:
        raise ValueError(f"crop_size is {crop}")
    return {"size": crop["height"], "resize": resize, "crop_share": share(crop["height"], scaled)}


def share(size: int, scaled: int) -> float:
    """Return the ``crop_share`` with which ``int(size / crop_share)`` is ``scaled``.

    Example:
        >>> share(224, 256)
        0.875
    """
    exact = size / scaled
    return exact if int(size / exact) == scaled else size / (scaled + 0.5)


def processor_config(backbone: Backbone) -> bytes:
    """Return a ``preprocessor_config.json`` with the original one's class, or CLIP's where there was none.

    It cannot say that nothing is smoothed (``antialias=False``), nor that half pixels are rounded to the even number;
    ``adapter.json`` beside it does.
    """
    recipe = backbone.preprocessing
    original = backbone.config.get("processor") or {"image_processor_type": "CLIPImageProcessor"}
    scaled = int(recipe.size / recipe.crop_share)
    square = {"height": scaled, "width": scaled}
    fields = {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square if recipe.resize == "squash" else {"shortest_edge": scaled},
        "resample": {name: number for number, name in _FILTERS.items()}[recipe.interpolation],
        "do_center_crop": recipe.resize == "crop" or scaled != recipe.size,
        "crop_size": {"height": recipe.size, "width": recipe.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
    }
    return (json.dumps({**original, **fields}, indent=2) + "\n").encode()

"""Safe decoding, and the preprocessing that belongs to a model."""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from likemind.errors import LikemindError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 100_000_000

_PNG_BITS = 24
_BITS, _PHOTOMETRIC = 258, 262
_TURNS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image to RGB, as a person would see it.

    Transparent parts become white, of an animation the first frame is taken, and a photograph that its EXIF data call
    turned is turned upright.

    Args:
        data: The file's bytes.
        name: What to call it in an error.

    Raises:
        LikemindError: Not an image of an admitted format, truncated, or over 100 million pixels.
    """
    if not data:
        raise LikemindError(f"{name} is empty: replace it, or pass --skip-bad")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise LikemindError(
                    f"{name} has {image.width}×{image.height} pixels, more than the {MAX_PIXELS:,} that are admitted "
                    "(a decompression bomb?): remove it, make it smaller, or pass --skip-bad"
                )
            image.load()
            if image.format == "PNG":
                _scale_transparency(image, data[_PNG_BITS])
            return _upright(to_rgb(image), _orientation(image))
    except Image.DecompressionBombError:
        raise LikemindError(f"{name} is a decompression bomb: remove it, or pass --skip-bad") from None
    except UnidentifiedImageError:
        known = f"{name} is not an image of a known kind ({', '.join(FORMATS)})"
        raise LikemindError(f"{known}: remove it, or pass --skip-bad") from None
    except LikemindError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LikemindError(f"{name} is damaged ({reason}): replace it, or pass --skip-bad") from None


def _scale_transparency(image: Image.Image, bits: int) -> None:
    """Bring a PNG's transparent colour to the eight bits of its pixels, which Pillow leaves undone."""
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif image.mode == "RGB" and isinstance(clear, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _orientation(image: Image.Image) -> int | None:
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - damaged EXIF data are no reason to refuse a sound picture
        return None
    return value if isinstance(value, int) else None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode to RGB, on white where it is transparent."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image))
        image = Image.fromarray(np.clip(grey * 255.0, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper eight of sixteen bits, as is done to each channel of a 16-bit RGB image."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    deep = np.asarray(image)
    clear = image.info.get("transparency")
    grey = np.clip(deep >> (4 if tags.get(_BITS) == (12,) else 8), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds only where there are fewer bits
        grey = 255 - grey
    if isinstance(clear, int):
        grey[deep == clear] = 255
    return Image.fromarray(grey)


class Preprocessing(BaseModel):
    """From an RGB image to a model's input.

    Attributes:
        size: Height and width of the input, in pixels.
        resize: "crop" scales the shorter side to ``size / crop_share`` and takes the centre, as timm does;
            "squash" scales both sides to ``size / crop_share`` and takes the centre.
        crop_share: Share of the scaled image that the crop keeps, in (0, 1]. Without one, "squash" keeps the whole
            image, as AligNet does.
        interpolation: Filter of the scaling.
        antialias: Widen the filter when making an image smaller. False is OpenCV's behaviour (cubic a=−0.75).
        mean: Subtracted from each channel, whose range is [0, 1].
        std: Divides each channel.
        half_pixel: Where the centre begins if the margin is odd: "even" rounds its half to the even number, as timm and
            torchvision do; "down" rounds it down, as transformers does. Written down only where it is "down".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, le=4096)
    resize: Literal["crop", "squash"] = "crop"
    crop_share: float = Field(default=0.875, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    antialias: bool = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    half_pixel: Literal["even", "down"] = "even"

    @model_serializer(mode="wrap")
    def _without_the_usual_half_pixel(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what older files and fingerprints do not know."""
        fields: dict[str, Any] = handler(self)
        if self.half_pixel == "even":
            fields.pop("half_pixel", None)
        return fields

    @model_validator(mode="before")
    @classmethod
    def _whole_when_squashed(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("resize") == "squash":
            return {"crop_share": 1.0} | given
        return given

    @classmethod
    def alignet(cls, size: int = 224) -> Self:
        """Return AligNet's own: the whole image squashed to a square, cubic (a=−0.75) without antialias, in [0, 1].

        The numbers are those of OpenCV's ``INTER_CUBIC`` on float32 pixels in [0, 1], to a rounding error; so sharp
        edges reach a little below 0 and above 1. On uint8 pixels OpenCV rounds its weights to 1/2048 and its result to
        whole grey levels within 0–255 instead.

        Source: Muttenthaler et al. 2025, released code (``configs/siglip.py``).

        Example:
            >>> Preprocessing.alignet().resize, Preprocessing.alignet().antialias
            ('squash', False)
        """
        return cls(size=size, resize="squash", antialias=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the input tensor, float32 (3, size, size).

        Raises:
            LikemindError: The image is so long and narrow that, scaled, it would not fit in memory.
        """
        pixels = self._resized(image if image.mode == "RGB" else to_rgb(image))
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return (pixels - mean) / std

    def _resized(self, image: Image.Image) -> Tensor:
        width, height = image.size
        target = self._target(image)
        if target[0] * target[1] > MAX_PIXELS:
            image = _middle(image)
            target = self._target(image)
        if target[0] * target[1] > MAX_PIXELS:
            raise LikemindError(
                f"an image of {width}×{height} pixels is too long and narrow to be scaled: crop it, or leave it out"
            )
        left, top = (self._begin(side - self.size) for side in target)
        if self.antialias:
            scaled = image.resize(target, _PIL_FILTERS[self.interpolation])
            return _to_tensor(scaled.crop((left, top, left + self.size, top + self.size)))
        pixels = torch.nn.functional.interpolate(
            _to_tensor(image).unsqueeze(0), size=target[::-1], mode=self.interpolation, align_corners=False
        )
        return pixels[0, :, top : top + self.size, left : left + self.size]

    def _begin(self, margin: int) -> int:
        return margin // 2 if self.half_pixel == "down" else round(margin / 2)

    def _target(self, image: Image.Image) -> tuple[int, int]:
        scaled = int(self.size / self.crop_share)
        if self.resize == "squash":
            return scaled, scaled
        shorter = min(image.size)
        return int(scaled * image.width / shorter), int(scaled * image.height / shorter)


def _middle(image: Image.Image) -> Image.Image:
    """Cut the ends off a sliver: scaled whole it would not fit in memory, and no crop of its centre would keep them."""
    kept = 4 * min(image.size) + 8
    left, top = (max(0, (side - kept) // 2) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255

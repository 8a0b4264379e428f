"""Common corruptions of photographs at five severities, the same ones for every model.

Six of the fifteen of Hendrycks and Dietterich 2019 ("Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR, section 4.1), one or two of each of their four kinds, with their published severities and written
anew. Two differences: the noise of an image is drawn by its id, so that it is always the same; and the result is not
saved as JPEG of quality 85, as ImageNet-C's files are.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from likemind.errors import LikemindError
from likemind.hashes import key_of
from likemind.images.collection import ImageCollection

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE, SCALED = 224, 256
"""Pixels of the square that is corrupted, and of the shorter side before it is cut: severities are for these."""

SEVERITIES = (1, 2, 3, 4, 5)
_VERSION = 1

_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_QUALITY = (25, 18, 15, 10, 7)
_PIXELS = (0.6, 0.5, 0.4, 0.3, 0.25)


def gaussian_noise(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add noise of a standard deviation of 0.08 to 0.38, drawn for every channel."""
    return pixels + rng.normal(scale=_NOISE[severity - 1], size=pixels.shape)


def defocus_blur(pixels: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Convolve with a disk of a radius of 3 to 10 pixels, its edge softened; borders are mirrored."""
    from scipy.ndimage import correlate1d
    from scipy.signal import fftconvolve

    radius, soft = _DEFOCUS[severity - 1]
    reach = max(8, radius)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    inside = x**2 + y**2 <= radius**2
    disk = inside / inside.sum()
    around = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    bell = np.exp(-(around**2) / (2 * soft**2))
    for axis in (0, 1):
        disk = correlate1d(disk, bell / bell.sum(), axis=axis, mode="mirror")
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred: np.ndarray = fftconvolve(wide, disk[:, :, None], mode="valid", axes=(0, 1))
    return blurred


def brightness(pixels: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Add 0.1 to 0.5 to the value of HSV (the largest channel); hue and saturation stay."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = np.minimum(value + _BRIGHTER[severity - 1], 1.0)
    found: np.ndarray = np.where(value > 0, pixels / np.where(value > 0, value, 1.0) * brighter, brighter)
    return found


def contrast(pixels: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Shrink the distance from each channel's mean to 0.4 to 0.05 of what it was."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    found: np.ndarray = (pixels - mean) * _CONTRAST[severity - 1] + mean
    return found


def jpeg_compression(pixels: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Save as JPEG of a quality of 25 to 7."""
    buffer = io.BytesIO()
    _image(pixels).save(buffer, "JPEG", quality=_QUALITY[severity - 1])
    return _pixels(Image.open(buffer))


def pixelate(pixels: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Scale to 0.6 to 0.25 of the size and back, with boxes."""
    image, side = _image(pixels), int(SIZE * _PIXELS[severity - 1])
    small = image.resize((side, side), Image.Resampling.BOX)
    return _pixels(small.resize(image.size, Image.Resampling.BOX))


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "defocus_blur": defocus_blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg_compression": jpeg_compression,
    "pixelate": pixelate,
}


def corrupt(image: Image.Image, name: str, severity: int, item: str) -> Image.Image:
    """Return a photograph's middle under a corruption.

    Args:
        image: Any size, RGB. Its shorter side is scaled to 256 pixels, and the middle 224 × 224 are cut, as the
            severities are meant for.
        name: A key of ``CORRUPTIONS``, or ``clean``, which only scales and cuts.
        severity: 1 to 5; 0 for ``clean``.
        item: The image's id, which decides what is drawn.

    Raises:
        LikemindError: No such corruption or severity.

    Example:
        >>> corrupt(Image.new("RGB", (300, 200), "red"), "contrast", 5, "a.jpg").size
        (224, 224)
    """
    if name != "clean" and name not in CORRUPTIONS:
        raise LikemindError(f"there is no corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}")
    if severity not in ((0,) if name == "clean" else SEVERITIES):
        raise LikemindError(f"{name} has no severity {severity}: choose 1 to 5, or clean with 0")
    square = _square(image)
    if name == "clean":
        return square
    seed = hashlib.sha256(f"{name}:{severity}:{item}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    return _image(CORRUPTIONS[name](_pixels(square), severity, rng))


def corrupted(images: ImageCollection, name: str, severity: int) -> ImageCollection:
    """Return a collection's images under a corruption, with the same ids; they are made when they are read."""
    return ImageCollection(images.path, _Corrupted(images, name, severity))


class _Corrupted:
    """Reads images of a collection, corrupted."""

    def __init__(self, images: ImageCollection, name: str, severity: int) -> None:
        self.ids = images.ids
        self._images, self._name, self._severity = images, name, severity

    def read(self, position: int) -> bytes:
        buffer = io.BytesIO()
        image = self._images.read(position)
        corrupt(image, self._name, self._severity, self.ids[position]).save(buffer, "BMP")
        return buffer.getvalue()

    def key(self, *, verify: bool) -> str:
        inner = self._images.key(verify=verify)
        return key_of(images=inner, corruption=self._name, severity=self._severity, version=_VERSION)


def _square(image: Image.Image) -> Image.Image:
    scale = SCALED / min(image.size)
    width, height = (max(SCALED, round(side * scale)) for side in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + SIZE, top + SIZE))


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64) / 255


def _image(pixels: np.ndarray) -> Image.Image:
    """Round down, as published, save for errors of float arithmetic."""
    return Image.fromarray((np.clip(pixels, 0.0, 1.0) * 255 + 1e-9).astype(np.uint8))

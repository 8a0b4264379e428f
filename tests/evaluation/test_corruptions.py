"""Corruptions against their definitions written out pixel by pixel, and what all of them must keep."""

from __future__ import annotations

import colorsys
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from likemind.errors import LikemindError
from likemind.evaluation.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    SIZE,
    brightness,
    contrast,
    corrupt,
    corrupted,
    defocus_blur,
    gaussian_noise,
    jpeg_compression,
    pixelate,
)
from likemind.images.collection import open_images

if TYPE_CHECKING:
    from pathlib import Path


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def scene(seed: int = 0, size: tuple[int, int] = (300, 260)) -> Image.Image:
    """Something smooth with an edge and a grain, as photographs have."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).copy()
    picture[:, size[0] * 3 // 7 :] //= 3
    grain = draw.normal(0, 25, picture.shape)
    return Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8))


def square(seed: int = 0) -> np.ndarray:
    return np.asarray(corrupt(scene(seed), "clean", 0, "a"), dtype=np.float64) / 255


def test_brightness_is_the_value_of_hsv() -> None:
    draw = np.random.default_rng(1)
    pixels = draw.random((4, 5, 3))
    pixels[0, 0] = 0.0
    for severity, more in zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        slow = np.empty_like(pixels)
        for place in np.ndindex(4, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[place])
            slow[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1.0))
        np.testing.assert_allclose(brightness(pixels, severity, rng()), slow, atol=1e-12)


def test_contrast_shrinks_about_the_mean() -> None:
    pixels = square()
    for severity, share in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        found = contrast(pixels, severity, rng())
        np.testing.assert_allclose(found.mean(axis=(0, 1)), pixels.mean(axis=(0, 1)))
        np.testing.assert_allclose(found.std(axis=(0, 1)), share * pixels.std(axis=(0, 1)))


def test_noise_has_the_published_deviation() -> None:
    grey = np.full((SIZE, SIZE, 3), 0.5)
    for severity, scale in zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True):
        noise = gaussian_noise(grey, severity, rng()) - grey
        assert abs(noise.std() - scale) < 0.01 * scale
        assert abs(noise.mean()) < 0.01 * scale
        assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_a_mean_over_a_soft_disk(severity: int) -> None:
    radius, soft = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach, near = max(8, radius), 1 if radius <= 8 else 2
    hard = {
        (y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if x * x + y * y <= radius * radius
    }
    bell = [np.exp(-(k * k) / (2 * soft * soft)) for k in range(-near, near + 1)]
    weight = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y, x in np.ndindex(*weight.shape):
        for i, p in enumerate(bell):
            for j, q in enumerate(bell):
                a, b = y - reach + i - near, x - reach + j - near
                a, b = (2 * reach - a if a > reach else -2 * reach - a if a < -reach else a), b
                b = 2 * reach - b if b > reach else -2 * reach - b if b < -reach else b
                weight[y, x] += p * q / sum(bell) ** 2 * ((a, b) in hard) / len(hard)
    pixels = np.random.default_rng(2).random((30, 40, 3))
    found = defocus_blur(pixels, severity, rng())
    assert found.shape == pixels.shape
    for y, x in ((15, 20), (0, 0), (29, 3)):
        total = np.zeros(3)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                row, column = abs(y + dy), abs(x + dx)
                row, column = min(row, 58 - row), min(column, 78 - column)
                total += weight[dy + reach, dx + reach] * pixels[row, column]
        np.testing.assert_allclose(found[y, x], total, atol=1e-12)


def test_jpeg_and_pixelate_are_pillows() -> None:
    picture = corrupt(scene(), "clean", 0, "a")
    pixels = np.asarray(picture, dtype=np.float64) / 255
    for severity, quality, share in zip(SEVERITIES, (25, 18, 15, 10, 7), (0.6, 0.5, 0.4, 0.3, 0.25), strict=True):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        np.testing.assert_allclose(jpeg_compression(pixels, severity, rng()) * 255, np.asarray(Image.open(buffer)))
        side = int(SIZE * share)
        small = picture.resize((side, side), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.BOX)
        np.testing.assert_allclose(pixelate(pixels, severity, rng()) * 255, np.asarray(small))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_is_worse_and_the_same_each_time(name: str) -> None:
    clean = np.asarray(corrupt(scene(), "clean", 0, "a"), dtype=int)
    far = []
    for severity in SEVERITIES:
        first, again = (np.asarray(corrupt(scene(), name, severity, "a"), dtype=int) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        far.append(float(((first - clean) ** 2).mean()))
    assert far == sorted(far)
    assert far[0] > 0


def test_noise_follows_the_id() -> None:
    same, other = (np.asarray(corrupt(scene(), "gaussian_noise", 1, name)) for name in ("a", "b"))
    assert (same != other).mean() > 0.5


@given(st.integers(20, 400), st.integers(20, 400))
def test_any_size_becomes_the_middle_square(width: int, height: int) -> None:
    assert corrupt(Image.new("RGB", (width, height), "blue"), "clean", 0, "a").size == (SIZE, SIZE)


def test_clean_is_the_middle_of_the_scaled_picture() -> None:
    picture = scene(size=(512, 256))
    cut = picture.crop((144, 16, 144 + SIZE, 16 + SIZE))
    np.testing.assert_array_equal(np.asarray(corrupt(picture, "clean", 0, "a")), np.asarray(cut))


def test_a_black_picture_stays_a_picture() -> None:
    for name in CORRUPTIONS:
        found = np.asarray(corrupt(Image.new("RGB", (64, 64)), name, 5, "a"))
        assert found.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("name", "severity", "said"),
    [
        ("fog", 1, "there is no corruption 'fog': choose one of gaussian_noise"),
        ("contrast", 0, "contrast has no severity 0"),
        ("contrast", 6, "contrast has no severity 6"),
        ("clean", 1, "clean has no severity 1"),
    ],
)
def test_what_there_is_not(name: str, severity: int, said: str) -> None:
    with pytest.raises(LikemindError, match=said):
        corrupt(scene(), name, severity, "a")


def test_a_collection_under_a_corruption(tmp_path: Path) -> None:
    for number, name in enumerate(("x.png", "y.png")):
        scene(number).save(tmp_path / name)
    images = open_images(tmp_path)
    blurred = corrupted(images, "defocus_blur", 2)
    assert blurred.ids == images.ids
    np.testing.assert_array_equal(
        np.asarray(blurred.select(["y.png"]).read(0)), np.asarray(corrupt(images.read(1), "defocus_blur", 2, "y.png"))
    )
    keys = {corrupted(images, name, severity).key() for name in CORRUPTIONS for severity in SEVERITIES}
    assert len(keys | {images.key()}) == 5 * len(CORRUPTIONS) + 1
    (tmp_path / "y.png").write_bytes(b"no picture")
    with pytest.raises(LikemindError, match=r"y\.png"):
        corrupted(open_images(tmp_path), "contrast", 1).read(1)

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from likemind.errors import LikemindError
from likemind.images.decode import FORMATS, MAX_PIXELS, Preprocessing, decode


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded(kind: str) -> None:
    image = noise(17, 11)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    found = decode(encoded(image, kind, **options), "x")
    assert found.mode == "RGB"
    assert found.size == (17, 11)
    if kind in ("PNG", "WEBP", "BMP", "TIFF"):
        np.testing.assert_array_equal(pixels(found), pixels(image))


def test_transparent_parts_become_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    assert pixels(decode(encoded(image), "x")).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    half = Image.new("LA", (1, 1), (0, 128))
    assert pixels(decode(encoded(half), "x"))[0, 0, 0] == pytest.approx(127, abs=1)


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(decode(encoded(image), "x")).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert pixels(decode(encoded(image, transparency=1), "x")).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind: str) -> None:
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    found = pixels(decode(encoded(Image.fromarray(grey), kind), "x"))
    np.testing.assert_allclose(found[0, :, 0], [0, 100, 255], atol=1)
    assert (found == found[:, :, :1]).all()


def test_floats_one_bit_cmyk_and_grey() -> None:
    floats = np.array([[0.0, 0.5, 1.0, math.nan, 7.0]], dtype=np.float32)
    assert pixels(decode(encoded(Image.fromarray(floats), "TIFF"), "x"))[0, :, 0].tolist() == [0, 127, 255, 0, 255]
    one_bit = Image.new("1", (2, 1))
    one_bit.putpixel((1, 0), 1)
    assert pixels(decode(encoded(one_bit), "x"))[0, :, 0].tolist() == [0, 255]
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = pixels(decode(encoded(cmyk, "JPEG"), "x"))[4, 4].tolist()
    assert (red < 10, green > 245, blue > 245) == (True, True, True)
    assert decode(encoded(Image.new("L", (3, 3), 9)), "x").getpixel((0, 0)) == (9, 9, 9)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert decode(data, "x").getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_photograph_is_turned_upright(kind: str) -> None:
    lying = Image.new("RGB", (32, 16), "black")
    lying.paste("white", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    upright = decode(encoded(lying, kind, exif=exif), "x")
    assert upright.size == (16, 32)
    assert upright.getpixel((8, 2))[0] > 240  # type: ignore[index]
    assert upright.getpixel((8, 29))[0] < 15  # type: ignore[index]


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    data = encoded(noise(8, 8), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff nonsense")
    assert decode(data, "x").size == (8, 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello", "not an image of a known kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image of a known kind"),
        (encoded(noise(4, 4), "PPM"), "not an image of a known kind"),
        (encoded(noise(4, 4), "ICO"), "not an image of a known kind"),
        (encoded(noise(40, 40), "JPEG")[:400], "damaged"),
        (encoded(noise(40, 40), "PNG")[:400], "damaged"),
        (png_header(50_000, 50_000), "bomb"),
        (png_header(MAX_PIXELS // 1000 + 1, 1000), "100,000,000"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    with pytest.raises(LikemindError, match=rf"cats/tom\.jpg .*{said}"):
        decode(data, "cats/tom.jpg")


SOUND = [encoded(noise(9, 7, seed), kind) for seed, kind in enumerate(FORMATS)] + [
    encoded(noise(9, 7).convert("P"), "PNG", transparency=1),
    encoded(Image.fromarray(np.zeros((5, 5), np.uint16)), "PNG"),
    encoded(noise(9, 7).convert("CMYK"), "TIFF", compression="tiff_lzw"),
    encoded(noise(9, 7), "GIF", save_all=True, append_images=[noise(9, 7, 5)]),
]


@given(st.sampled_from(SOUND), st.data())
def test_any_damage_gives_an_image_or_our_error(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data[: draw.draw(st.integers(0, len(data)))])
    places = st.tuples(st.integers(0, 10**6), st.integers(0, 255))
    for place, value in draw.draw(st.lists(places, max_size=8)):
        if damaged:
            damaged[place % len(damaged)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert decode(bytes(damaged), "x").mode == "RGB"
        except LikemindError as error:
            assert str(error).startswith("x ")  # noqa: PT017


SIZES = [(160, 160), (161, 97), (97, 161), (33, 500), (8, 8), (1, 3), (224, 223), (640, 427)]


def timms(size: int, mode: str, share: float, interpolation: str) -> Any:
    return timm.data.create_transform(
        (3, size, size),
        is_training=False,
        interpolation=interpolation,
        crop_pct=share,
        crop_mode=mode,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("mode", "share"), [("center", 0.875), ("center", 0.95), ("center", 1.0), ("squash", 1.0), ("squash", 0.9)]
)
@pytest.mark.parametrize("size", [64, 95])
def test_preprocessing_is_timms(size: int, mode: str, share: float, interpolation: Any) -> None:
    ours = Preprocessing(
        size=size,
        resize="squash" if mode == "squash" else "crop",
        crop_share=share,
        interpolation=interpolation,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )
    theirs = timms(size, mode, share, interpolation)
    for number, (width, height) in enumerate(SIZES):
        image = noise(width, height, number)
        found = ours(image)
        assert found.shape == (3, size, size)
        torch.testing.assert_close(found, theirs(image), rtol=0, atol=1e-6)


def cubic_weights(at: float) -> list[float]:
    """OpenCV's INTER_CUBIC: Keys' kernel with a = −0.75 at the distances at+1, at, 1−at, 2−at."""
    a = -0.75

    def kernel(x: float) -> float:
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    return [kernel(at + 1), kernel(at), kernel(1 - at), kernel(2 - at)]


def slow_cubic(image: np.ndarray, size: int) -> np.ndarray:
    height, width, channels = image.shape
    result = np.zeros((size, size, channels))
    for y in range(size):
        source_y = (y + 0.5) * height / size - 0.5
        top = math.floor(source_y)
        for x in range(size):
            source_x = (x + 0.5) * width / size - 0.5
            left = math.floor(source_x)
            for j, weight_y in enumerate(cubic_weights(source_y - top), start=-1):
                for i, weight_x in enumerate(cubic_weights(source_x - left), start=-1):
                    row, column = min(max(top + j, 0), height - 1), min(max(left + i, 0), width - 1)
                    result[y, x] += weight_y * weight_x * image[row, column]
    return result


@pytest.mark.parametrize(("width", "height"), [(40, 40), (31, 17), (5, 9), (12, 12)])
def test_squash_without_antialias_is_opencvs_cubic(width: int, height: int) -> None:
    image = noise(width, height)
    recipe = Preprocessing(size=12, resize="squash", antialias=False, mean=(0, 0, 0), std=(1, 1, 1))
    expected = slow_cubic(pixels(image) / 255, 12).transpose(2, 0, 1)
    np.testing.assert_allclose(recipe(image).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (31, 17), (5, 9)])
def test_alignets_recipe_is_written_out_slowly(width: int, height: int) -> None:
    image = noise(width, height)
    expected = slow_cubic(pixels(image) / 255, 12).transpose(2, 0, 1)
    np.testing.assert_allclose(Preprocessing.alignet(12)(image).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (224, 224), (100, 150), (640, 427), (33, 500), (8, 8)])
def test_alignets_recipe_is_opencvs(width: int, height: int) -> None:
    """On float32 pixels to a rounding error; on uint8 pixels, which OpenCV rounds and clips, to half a grey level."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not at hand: pip install opencv-python-headless")
    image = noise(width, height)
    found = Preprocessing.alignet()(image).permute(1, 2, 0).numpy()
    floats = cv2.resize(pixels(image).astype(np.float32) / 255, (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(found, floats, atol=1e-4)
    whole = cv2.resize(pixels(image), (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(255 * found.clip(0, 1), whole, atol=0.52)


def test_alignets_recipe_is_the_whole_image_between_0_and_1() -> None:
    recipe = Preprocessing.alignet()
    assert (recipe.size, recipe.resize, recipe.crop_share, recipe.interpolation) == (224, "squash", 1, "bicubic")
    wide = Image.new("RGB", (400, 100), "black")
    wide.paste("white", (200, 0, 400, 100))
    found = recipe(wide)
    torch.testing.assert_close(found[:, :, :100], torch.zeros(3, 224, 100))
    torch.testing.assert_close(found[:, :, 124:], torch.ones(3, 224, 100))


def test_antialias_makes_a_difference_only_when_shrinking() -> None:
    flags = [
        Preprocessing(size=16, resize="squash", interpolation="bilinear", antialias=flag) for flag in (True, False)
    ]
    large, small = noise(200, 200), noise(9, 9)
    assert (flags[0](large) - flags[1](large)).abs().max() > 0.5
    assert (flags[0](small) - flags[1](small)).abs().max() < 0.05  # Pillow rounds to whole grey levels


def test_images_of_any_mode_are_prepared() -> None:
    recipe = Preprocessing(size=8)
    grey = noise(9, 9).convert("L")
    torch.testing.assert_close(recipe(grey), recipe(grey.convert("RGB")))
    clear = Image.new("RGBA", (9, 9), (1, 2, 3, 0))
    torch.testing.assert_close(recipe(clear), recipe(Image.new("RGB", (9, 9), "white")))


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(LikemindError, match=r"20000×1 pixels is too long"):
        Preprocessing(size=4096)(Image.new("RGB", (20_000, 1)))


def test_settings_are_checked_and_survive_json() -> None:
    for bad in ({"size": 4}, {"size": 64, "crop_share": 0}, {"size": 64, "crop_share": 1.1}, {"size": 64, "colour": 1}):
        with pytest.raises(ValidationError):
            Preprocessing.model_validate(bad)
    for recipe in (
        Preprocessing(size=64),
        Preprocessing(size=64, resize="squash"),
        Preprocessing(size=64, resize="squash", crop_share=0.9),
    ):
        assert Preprocessing.model_validate_json(recipe.model_dump_json()) == recipe
    assert Preprocessing(size=64, resize="squash").crop_share == 1
    assert Preprocessing(size=64).crop_share == 0.875

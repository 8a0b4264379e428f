"""Pictures as they come: sound ones of every odd kind with what they must show, and broken ones with what is said."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
CORNERS = np.array([[RED, GREEN, BLUE], [BLACK, WHITE, (255, 255, 0)]], dtype=np.uint8)
"""Six colours, 2 × 3: what is turned or mirrored does not look the same."""
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
NOT_KNOWN = "is not an image of a known kind (JPEG, PNG, WEBP, BMP, GIF, TIFF): remove it, or pass --skip-bad"


@dataclass(frozen=True)
class Good:
    """A file that can be read: its size and some of its pixels, within ``near`` levels."""

    data: bytes
    size: tuple[int, int]
    pixels: dict[tuple[int, int], Colour] = field(default_factory=dict)
    near: int = 0


@dataclass(frozen=True)
class Bad:
    """A file that cannot be read, and a part of the sentence about it."""

    data: bytes
    said: str


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: Any, mode: str = "RGB", side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), colour)


# --- by hand


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], bits: int, kind: int, rows: bytes, *others: bytes) -> bytes:
    """A PNG of raw rows, each with its filter byte."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(others) + body + chunk(b"IEND", b"")


def deep(*values: int) -> bytes:
    """A PNG row of 16-bit values."""
    return b"\0" + struct.pack(f">{len(values)}H", *values)


def tiff(size: tuple[int, int], bits: int, photometric: int, rows: bytes, channels: int = 1, **more: int) -> bytes:
    """A little-endian TIFF of one strip."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 273: 8, 277: channels, 278: size[1]}
    tags |= {279: len(rows)} | {int(name[1:]): value for name, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    rows += b"\0" * (len(rows) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def bmp(width: int, height: int, bits: int = 24, rows: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows


def ycck(colour: tuple[int, int, int, int]) -> bytes:
    """An inverted Adobe JPEG in YCCK: a CMYK one whose first three channels are YCbCr, and whose marker says so."""
    luma = np.asarray(Image.new("RGB", (1, 1), colour[:3]).convert("YCbCr"))[0, 0]
    data = bytearray(encoded(plain((*(255 - int(v) for v in luma), colour[3]), "CMYK", 16), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def turned(orientation: int, kind: str, patch: int = 1, **options: Any) -> bytes:
    """CORNERS as a camera stores them that was held so."""
    upright = CORNERS.repeat(patch, axis=0).repeat(patch, axis=1)
    across = upright.transpose(1, 0, 2)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: across,
        6: across[::-1],
        7: across[::-1, ::-1],
        8: across[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)


def corners(data: bytes, patch: int = 1, near: int = 0) -> Good:
    half = patch // 2
    seen = {(x * patch + half, y * patch + half): tuple(map(int, CORNERS[y, x])) for y in range(2) for x in range(3)}
    return Good(data, (3 * patch, 2 * patch), seen, near)  # type: ignore[arg-type]


# --- what can be read


def good() -> dict[str, Good]:
    return {**_turned(), **_modes(), **_pngs(), **_tiffs(), **_animated(), **_shapes(), **_dirty()}


def _turned() -> dict[str, Good]:
    found = {}
    for k in range(1, 9):
        found[f"turned-{k}.png"] = corners(turned(k, "PNG"))
        found[f"turned-{k}.jpg"] = corners(turned(k, "JPEG", 16, quality=95, subsampling=0), 16, 12)
        found[f"turned-{k}.tif"] = corners(turned(k, "TIFF"))
    found["turned-6.webp"] = corners(turned(6, "WEBP", lossless=True))
    found["turned-9.jpg"] = Good(_exif(struct.pack("<HHHII", 1, 0x0112, 3, 1, 9) + b"\0" * 4), (8, 8), {(4, 4): RED}, 3)
    return found


def _exif(entries: bytes) -> bytes:
    return with_segment(encoded(plain(RED), "JPEG"), 0xE1, b"Exif\0\0II*\0\x08\0\0\0" + entries)


def _modes() -> dict[str, Good]:
    jpeg = {"kind": "JPEG", "quality": 95}
    cyan = {(4, 4): (0, 255, 255)}
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    bits = Image.fromarray(np.array([[False, True]]))
    bare_cmyk = encoded(plain((255, 0, 0, 0), "CMYK"), **jpeg)
    return {
        "cmyk.jpg": Good(bare_cmyk, (8, 8), cyan, 3),
        "cmyk-with-black.jpg": Good(
            encoded(plain((0, 128, 255, 64), "CMYK"), **jpeg), (8, 8), {(4, 4): (191, 95, 0)}, 3
        ),
        "cmyk-without-marker.jpg": Good(bare_cmyk[:2] + bare_cmyk[18:], (8, 8), cyan, 3),
        "cmyk.tif": Good(encoded(plain((255, 0, 0, 0), "CMYK"), "TIFF"), (8, 8), cyan),
        "ycck.jpg": Good(ycck((0, 255, 255, 0)), (16, 16), {(8, 8): RED}, 4),
        "ycck-with-black.jpg": Good(ycck((255, 0, 0, 128)), (16, 16), {(8, 8): (0, 127, 127)}, 4),
        "grey.jpg": Good(encoded(plain(90, "L"), **jpeg), (8, 8), {(4, 4): (90, 90, 90)}, 1),
        "grey.png": Good(encoded(plain(90, "L")), (8, 8), {(4, 4): (90, 90, 90)}),
        "progressive.jpg": Good(encoded(plain(RED), progressive=True, **jpeg), (8, 8), {(4, 4): RED}, 3),
        "rgba.png": Good(encoded(plain((10, 20, 30, 0), "RGBA")), (8, 8), {(4, 4): WHITE}),
        "rgba-half.png": Good(encoded(plain((0, 0, 255, 51), "RGBA")), (8, 8), {(4, 4): (204, 204, 255)}, 1),
        "rgba.webp": Good(encoded(plain((1, 2, 3, 0), "RGBA"), "WEBP", lossless=True), (8, 8), {(4, 4): WHITE}),
        "rgba.tif": Good(encoded(plain((1, 2, 3, 0), "RGBA"), "TIFF"), (8, 8), {(4, 4): WHITE}),
        "la.png": Good(encoded(plain((0, 51), "LA")), (8, 8), {(4, 4): (204, 204, 204)}, 1),
        "one-bit.png": Good(encoded(bits), (2, 1), {(0, 0): BLACK, (1, 0): WHITE}),
        "one-bit.tif": Good(encoded(bits, "TIFF"), (2, 1), {(0, 0): BLACK, (1, 0): WHITE}),
        "one-bit.bmp": Good(encoded(bits, "BMP"), (2, 1), {(0, 0): BLACK, (1, 0): WHITE}),
        "palette.png": Good(encoded(palette), (2, 1), {(0, 0): RED, (1, 0): GREEN}),
        "palette.gif": Good(encoded(palette, "GIF"), (2, 1), {(0, 0): RED, (1, 0): GREEN}),
        "palette.bmp": Good(encoded(palette, "BMP"), (2, 1), {(0, 0): RED, (1, 0): GREEN}),
        "palette-clear.png": Good(encoded(palette, transparency=1), (2, 1), {(0, 0): RED, (1, 0): WHITE}),
        "palette-veiled.png": Good(
            encoded(palette, transparency=b"\xff\x33"), (2, 1), {(0, 0): RED, (1, 0): (204, 255, 204)}, 1
        ),
        "palette-clear.gif": Good(encoded(palette, "GIF", transparency=1), (2, 1), {(0, 0): RED, (1, 0): WHITE}),
        "ycc.tif": Good(encoded(plain((100, 128, 128), "YCbCr"), "TIFF"), (8, 8), {(4, 4): (100, 100, 100)}),
    }


def _pngs() -> dict[str, Good]:
    grey = deep(0, 25_700, 51_400, 65_535)
    steps = {(0, 0): BLACK, (1, 0): (100,) * 3, (2, 0): (200,) * 3, (3, 0): WHITE}
    clear = {**steps, (1, 0): WHITE}
    two = {(0, 0): BLACK, (1, 0): (85,) * 3, (2, 0): (170,) * 3, (3, 0): WHITE}
    return {
        "grey-16.png": Good(png((4, 1), 16, 0, grey), (4, 1), steps),
        "grey-16-clear.png": Good(png((4, 1), 16, 0, grey, chunk(b"tRNS", struct.pack(">H", 25_700))), (4, 1), clear),
        "rgb-16.png": Good(png((1, 1), 16, 2, deep(0, 25_700, 65_535)), (1, 1), {(0, 0): (0, 100, 255)}),
        "rgb-16-clear.png": Good(
            png((1, 1), 16, 2, deep(0, 1, 2), chunk(b"tRNS", struct.pack(">3H", 0, 1, 2))), (1, 1), {(0, 0): WHITE}
        ),
        "la-16.png": Good(png((2, 1), 16, 4, deep(25_700, 65_535, 5, 0)), (2, 1), {(0, 0): (100,) * 3, (1, 0): WHITE}),
        "rgba-16.png": Good(png((1, 1), 16, 6, deep(25_700, 0, 65_535, 65_535)), (1, 1), {(0, 0): (100, 0, 255)}),
        "grey-2.png": Good(png((4, 1), 2, 0, b"\0\x1b"), (4, 1), two),
        "grey-2-clear.png": Good(
            png((4, 1), 2, 0, b"\0\x1b", chunk(b"tRNS", b"\0\x01")), (4, 1), {**two, (1, 0): WHITE}
        ),
        "grey-4-clear.png": Good(
            png((2, 1), 4, 0, b"\0\x1e", chunk(b"tRNS", b"\0\x01")), (2, 1), {(0, 0): WHITE, (1, 0): (238,) * 3}
        ),
        "grey-1-clear.png": Good(
            png((2, 1), 1, 0, b"\0\x40", chunk(b"tRNS", b"\0\x00")), (2, 1), {(0, 0): WHITE, (1, 0): WHITE}
        ),
        "rgb-clear.png": Good(
            png((2, 1), 8, 2, b"\0\x01\x02\x03\x09\x09\x09", chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))),
            (2, 1),
            {(0, 0): WHITE, (1, 0): (9, 9, 9)},
        ),
        "profile.png": Good(
            png((1, 1), 8, 2, b"\0\xc8\x64\x32", chunk(b"iCCP", b"wide\0\0" + zlib.compress(b"no profile"))),
            (1, 1),
            {(0, 0): (200, 100, 50)},
        ),
        "gamma.png": Good(
            png((1, 1), 8, 2, b"\0\xc8\x64\x32", chunk(b"gAMA", struct.pack(">I", 1))), (1, 1), {(0, 0): (200, 100, 50)}
        ),
        "after-the-pixels.png": Good(png((1, 1), 8, 0, b"\0\x07" + bytes(20_000_000)), (1, 1), {(0, 0): (7, 7, 7)}),
    }


def _tiffs() -> dict[str, Good]:
    rows = struct.pack("<4H", 0, 25_700, 51_400, 65_535)
    steps = {(0, 0): BLACK, (1, 0): (100,) * 3, (2, 0): (200,) * 3, (3, 0): WHITE}
    backwards = {(0, 0): WHITE, (1, 0): (155,) * 3, (2, 0): (55,) * 3, (3, 0): BLACK}
    floats = np.array([[0.0, 0.5, 1.0, np.nan, -3.0, np.inf]], dtype=np.float32)
    pages = [plain(colour) for colour in (RED, GREEN, BLUE)]
    return {
        "grey-16.tif": Good(tiff((4, 1), 16, 1, rows), (4, 1), steps),
        "grey-16-white-is-zero.tif": Good(tiff((4, 1), 16, 0, rows), (4, 1), backwards),
        "grey-8-white-is-zero.tif": Good(tiff((4, 1), 8, 0, bytes([0, 100, 200, 255])), (4, 1), backwards),
        "grey-12.tif": Good(tiff((2, 1), 12, 1, b"\xff\xf8\x00"), (2, 1), {(0, 0): WHITE, (1, 0): (128,) * 3}),
        "rgb-16.tif": Good(
            tiff((1, 1), 16, 2, struct.pack("<3H", 0, 25_700, 65_535), 3), (1, 1), {(0, 0): (0, 100, 255)}
        ),
        "float.tif": Good(
            encoded(Image.fromarray(floats), "TIFF"), (6, 1), {(1, 0): (127,) * 3, (3, 0): BLACK, (5, 0): WHITE}
        ),
        "pages.tif": Good(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), (8, 8), {(4, 4): RED}),
        "lzw.tif": Good(encoded(Image.fromarray(CORNERS), "TIFF", compression="tiff_lzw"), (3, 2), {(2, 0): BLUE}),
    }


def _animated() -> dict[str, Good]:
    frames = [plain(colour) for colour in (RED, GREEN, BLUE)]
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    gif = encoded(frames[0], "GIF", **more)
    start, end = gif.index(b"\x21\xf9\x04"), gif.rindex(b"\x3b")
    frame = gif[gif.index(b"\x21\xf9\x04", start + 1) : end]
    return {
        "animated.gif": Good(gif, (8, 8), {(4, 4): RED}),
        "animated.png": Good(encoded(frames[0], "PNG", **more), (8, 8), {(4, 4): RED}),
        "animated.webp": Good(encoded(frames[0], "WEBP", lossless=True, **more), (8, 8), {(4, 4): RED}),
        "animated-mpo.jpg": Good(encoded(frames[0], "MPO", **more), (8, 8), {(4, 4): RED}, 3),
        "animated-without-end.gif": Good(gif[:end] + frame * 20_000, (8, 8), {(4, 4): RED}),
    }


def _shapes() -> dict[str, Good]:
    return {
        "pixel.png": Good(encoded(plain(RED, side=1)), (1, 1), {(0, 0): RED}),
        "pixel.gif": Good(encoded(plain(RED, side=1), "GIF"), (1, 1), {(0, 0): RED}),
        "pixel.jpg": Good(encoded(plain(RED, side=1), "JPEG"), (1, 1), {(0, 0): RED}, 3),
        "tower.png": Good(encoded(Image.new("RGB", (1, 5000), GREEN)), (1, 5000), {(0, 4999): GREEN}),
        "ribbon.jpg": Good(encoded(Image.new("RGB", (5000, 1), BLUE), "JPEG"), (5000, 1), {(4999, 0): BLUE}, 3),
        "upside-down.bmp": Good(bmp(1, -2, rows=b"\0\0\xff\0" + b"\xff\0\0\0"), (1, 2), {(0, 0): RED, (0, 1): BLUE}),
    }


def _dirty() -> dict[str, Good]:
    jpeg, small = encoded(plain(RED), "JPEG"), encoded(plain(RED))
    red = {(4, 4): RED}
    body = small.index(b"IDAT") - 4
    return {
        "trailing.jpg": Good(jpeg + b"\0<html>" * 999, (8, 8), red, 3),
        "trailing.png": Good(small + b"PK\x03\x04" * 99, (8, 8), red),
        "without-end.png": Good(small[:-12], (8, 8), red),
        "exif-of-nothing.jpg": Good(with_segment(jpeg, 0xE1, b"Exif\0\0"), (8, 8), red, 3),
        "exif-of-garbage.jpg": Good(with_segment(jpeg, 0xE1, b"Exif\0\0" + bytes(range(256))), (8, 8), red, 3),
        "exif-of-lies.jpg": Good(_exif(struct.pack("<H", 65_535) + b"\xff" * 40), (8, 8), red, 3),
        "exif-in-a-loop.jpg": Good(_exif(struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)), (8, 8), red, 3),
        "orientation-of-text.jpg": Good(
            _exif(struct.pack("<HHHI", 1, 0x0112, 2, 4) + b"six\0" + b"\0" * 4), (8, 8), red, 3
        ),
        "exif-of-garbage.png": Good(small[:body] + chunk(b"eXIf", b"MM\0*\xff\xff") + small[body:], (8, 8), red),
        "profile-of-garbage.jpg": Good(with_segment(jpeg, 0xE2, b"ICC_PROFILE\0\x09\x02?"), (8, 8), red, 3),
        "mpo-of-garbage.jpg": Good(with_segment(jpeg, 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"), (8, 8), red, 3),
        "png-named.jpg": Good(small, (8, 8), red),
        "jpeg-named.gif": Good(jpeg, (8, 8), red, 3),
        "UPPER.JPG": Good(jpeg, (8, 8), red, 3),
        "two.dots.tar.png": Good(small, (8, 8), red),
    }


# --- what cannot


def bad() -> dict[str, Bad]:
    return {**_cut(), **_bombs(), **_no_images(), **_corrupt()}


def _cut() -> dict[str, Bad]:
    found = {}
    for kind, ending in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
    ):
        data = encoded(Image.fromarray(NOISE), kind)
        found[f"cut-to-4.{ending}"] = Bad(data[:4], NOT_KNOWN)
        found[f"cut-in-header.{ending}"] = Bad(data[:26], NOT_KNOWN if kind in ("GIF", "TIFF") else "is damaged (")
        found[f"cut-in-pixels.{ending}"] = Bad(data[: len(data) // 2], "is damaged (")
        found[f"zeros.{ending}"] = Bad(bytes(500), NOT_KNOWN)
        found[f"empty.{ending}"] = Bad(b"", "is empty: replace it, or pass --skip-bad")
    whole = encoded(Image.fromarray(NOISE), "JPEG", progressive=True)
    found["cut-progressive.jpg"] = Bad(whole[: len(whole) * 2 // 3], "is damaged (image file is truncated")
    return found


def _bombs() -> dict[str, Bad]:
    side, bomb = (50_000, 50_000), "is a decompression bomb: remove it, or pass --skip-bad"
    packed = zlib.compress(bytes(20_000_000), 9)
    many = [chunk(b"zTXt", b"k%d\0\0" % k + zlib.compress(bytes(1_000_000), 9)) for k in range(70)]
    jpeg = bytearray(encoded(plain(RED), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 50_000, 50_000)
    gif = bytearray(encoded(plain(RED), "GIF"))
    gif[6:10] = struct.pack("<HH", 50_000, 50_000)
    wide = bytearray(encoded(plain(RED), "GIF"))
    frame = wide.index(b"\x2c\0\0\0\0")
    wide[frame + 5 : frame + 9] = struct.pack("<HH", 50_000, 50_000)
    return {
        "bomb.png": Bad(png(side, 8, 2, b""), bomb),
        "bomb-of-one-bit.png": Bad(png(side, 1, 0, b""), bomb),
        "bomb.jpg": Bad(bytes(jpeg), bomb),
        "bomb.gif": Bad(bytes(gif), bomb),
        "bomb-in-a-frame.gif": Bad(bytes(wide), bomb),
        "bomb.tif": Bad(tiff(side, 8, 1, b""), bomb),
        "bomb.bmp": Bad(bmp(*side), bomb),
        "just-too-large.png": Bad(png((100_001, 1000), 8, 0, b""), "100001×1000 pixels, more than the 100,000,000"),
        "bomb-of-text.png": Bad(
            png((1, 1), 8, 0, b"\0\7", chunk(b"zTXt", b"k\0\0" + packed)), "is damaged (Decompressed"
        ),
        "bomb-of-words.png": Bad(
            png((1, 1), 8, 0, b"\0\7", chunk(b"iTXt", b"k\0\1\0\0\0" + packed)), "is damaged (Decompressed"
        ),
        "bomb-of-profile.png": Bad(
            png((1, 1), 8, 0, b"\0\7", chunk(b"iCCP", b"k\0\0" + packed)), "is damaged (Decompressed"
        ),
        "bomb-of-texts.png": Bad(png((1, 1), 8, 0, b"\0\7", *many), "is damaged (Too much memory"),
    }


def _no_images() -> dict[str, Bad]:
    texts = {
        "text.jpg": b"I am a picture of a cat.\n",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "drawing.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "script.png": b"<script>alert(1)</script>",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "archive.png": b"PK\x03\x04" + bytes(100),
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "icon.png": encoded(plain(RED, side=16), "ICO"),
        "portable.png": encoded(plain(RED), "PPM"),
        "noise.jpg": NOISE.tobytes()[:999],
        "byte-order-mark.png": b"\xef\xbb\xbf" + encoded(plain(RED)),
        "newlines.png": encoded(plain(RED)).replace(b"\r\n", b"\n"),
    }
    return {name: Bad(data, NOT_KNOWN) for name, data in texts.items()}


def _corrupt() -> dict[str, Bad]:
    whole = encoded(Image.fromarray(NOISE))
    pixels = bytearray(whole)
    pixels[len(whole) // 2 : len(whole) // 2 + 40] = b"\0" * 40
    webp = encoded(Image.fromarray(NOISE), "WEBP")
    jpeg = bytearray(encoded(Image.fromarray(NOISE), "JPEG"))
    jpeg[len(jpeg) // 2 : len(jpeg) // 2 + 40] = b"\xff" * 40
    gif = bytearray(encoded(Image.fromarray(NOISE), "GIF"))
    gif[len(gif) // 2 : len(gif) // 2 + 40] = b"\xff" * 40
    flipped = whole[:29] + b"\0\0\0\0" + whole[33:]
    return {
        "bad-crc.png": Bad(flipped, NOT_KNOWN),
        "bad-crc-of-text.png": Bad(
            whole[:33] + struct.pack(">I", 4) + b"tEXtk\0vv" + b"\0\0\0\0" + whole[33:], NOT_KNOWN
        ),
        "no-size.png": Bad(png((0, 0), 8, 0, b""), NOT_KNOWN),
        "no-pixels.png": Bad(whole[:33] + chunk(b"IEND", b""), "is damaged ("),
        "odd-depth.png": Bad(png((1, 1), 5, 0, b"\0\0"), NOT_KNOWN),
        "hole.png": Bad(bytes(pixels), "is damaged ("),
        "hole.jpg": Bad(bytes(jpeg), "is damaged ("),
        "hole.gif": Bad(bytes(gif), "is damaged ("),
        "hole.webp": Bad(webp[:16] + b"\xff" * (len(webp) - 16), "is damaged ("),
        "sizes-that-lie.webp": Bad(webp[:4] + b"\xff\xff\xff\x7f" + webp[8:], "is damaged ("),
        "no-pixels.bmp": Bad(bmp(9, 9), "is damaged ("),
        "no-size.bmp": Bad(bmp(0, 0), NOT_KNOWN),
        "odd-depth.bmp": Bad(bmp(1, 1, 7, b"\0" * 4), "is damaged ("),
        "no-pixels.tif": Bad(tiff((40, 40), 8, 1, b""), "is damaged ("),
        "odd-photometric.tif": Bad(tiff((1, 1), 8, 99, b"\0\0"), NOT_KNOWN),
        "strips-elsewhere.tif": Bad(tiff((40, 40), 8, 1, bytes(1600), _273=10**9), "is damaged ("),
    }

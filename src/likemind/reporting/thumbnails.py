"""Small pictures, each once in the page however often it is shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.images.collection import ImageCollection

LARGE, SMALL = 112, 40


@dataclass(frozen=True)
class Thumbnail:
    """A square picture of ``size`` pixels as a data URI, with the id of its SVG symbol."""

    symbol: str
    size: int
    uri: str


class Album:
    """Hands out the symbols of pictures and remembers which are needed.

    Args:
        data: Where the pictures are.
        pictures: Show any; without, ``symbol`` is always "" and no image file is touched.

    Raises:
        LikemindError: The images are missing.
    """

    def __init__(self, data: EvaluationSet, *, pictures: bool) -> None:
        self._symbols = {item.id: f"t{row}" for row, item in enumerate(data.items)}
        self._images: ImageCollection | None = None
        self._wanted: dict[str, int] = {}
        if pictures:
            try:
                self._images = data.images()
            except LikemindError as error:
                raise _without_pictures(error) from None

    def symbol(self, item: str, size: int = LARGE) -> str:
        """Return the id of an item's symbol, in at least this size, or "" without pictures."""
        if self._images is None:
            return ""
        self._wanted[item] = max(size, self._wanted.get(item, 0))
        return self._symbols[item]

    def thumbnails(self) -> list[Thumbnail]:
        """Decode what was asked for.

        Raises:
            LikemindError: A picture is missing or damaged.
        """
        if self._images is None or not self._wanted:
            return []
        try:
            positions = self._images.positions(list(self._wanted))
            pairs = sorted(zip(positions, self._wanted.items(), strict=True))
            return [
                Thumbnail(self._symbols[item], size, _encode(self._images, position, size))
                for position, (item, size) in pairs
            ]
        except LikemindError as error:
            raise _without_pictures(error) from None


def _encode(images: ImageCollection, position: int, size: int) -> str:
    from PIL import Image, ImageOps

    square = ImageOps.fit(images.read(position), (size, size), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    square.save(sink, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode()


def _without_pictures(error: LikemindError) -> LikemindError:
    return LikemindError(f"{error}; or make the page without pictures (--no-pictures)")

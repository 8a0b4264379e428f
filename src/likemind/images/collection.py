"""Images with ids: a folder, tars, Parquet files, or a saved Hugging Face dataset."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from likemind.errors import LikemindError, few, shown
from likemind.fetched import fetched
from likemind.hashes import key_of
from likemind.images.decode import decode
from likemind.images.sources import SUFFIXES, Folder, has_suffix, names_below
from likemind.images.tables import Parquet, SavedDataset, saved_dataset_files
from likemind.images.tars import Tars
from likemind.objects import url_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

    from likemind.artifacts import PathLike
    from likemind.images.sources import Source


class ImageCollection:
    """Images that can be read in any order, each with a string id.

    Ids are paths relative to the folder (``cats/tom.jpg``), member names of a tar, or a table's column ``id``. They
    are names alone: nothing is ever written to them. Files whose names begin with a dot are passed over, and so is
    whatever is no file (a pipe, a folder named ``x.jpg``). Links to files are followed, links to folders are not.

    Attributes:
        path: Where the images are; of a URL, the copy on this machine.
        origin: The path or URL that was opened.
        ids: One an image.
        left_out: Messages about images that ``open_images`` left out; empty unless it was told to.

    Example:
        >>> images = open_images("photos/")  # doctest: +SKIP
        >>> images.ids[0], images.read(0).size  # doctest: +SKIP
        ('cats/tom.jpg', (640, 480))
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        rows: np.ndarray | None = None,
        left_out: Sequence[str] = (),
        origin: PathLike | None = None,
    ) -> None:
        self.path = path
        self.origin = path if origin is None else origin
        self.left_out = list(left_out)
        self._source = source
        self._rows = np.arange(len(source.ids)) if rows is None else rows
        self.ids: list[str] = [source.ids[row] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}

    def read(self, position: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            LikemindError: The image is damaged, too large, or of a kind that is not admitted; it is named.
        """
        name = shown(f"{self.path}: {self.ids[position]}")
        try:
            data = self._source.read(int(self._rows[position]))
        except OSError as error:
            reason = error.strerror or str(error)
            raise LikemindError(f"{name} cannot be read ({reason}): replace it, or pass --skip-bad") from None
        return decode(data, name)

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Return where the ids stand.

        Raises:
            LikemindError: An id is not in the collection; up to five are named.
        """
        missing = [name for name in ids if name not in self._position]
        if missing:
            named = f"{len(missing)} of the images asked for ({few(missing)})"
            raise LikemindError(f"{self.path} lacks {named}: add them, or leave them out")
        return [self._position[name] for name in ids]

    def select(self, ids: Sequence[str]) -> ImageCollection:
        """Return the images with these ids, in this order."""
        return ImageCollection(self.path, self._source, self._rows[self.positions(ids)], origin=self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the images again; what it is sent is where they are, and which of them, if not all."""
        whole = len(self) == len(self._source.ids) and bool((np.diff(self._rows) == 1).all())
        return _reopened, (self.origin, None if whole else self._rows, self.left_out, key_of(ids=self.ids))

    def key(self, *, verify: bool = False) -> str:
        """Return a hash of the ids and of all image bytes (remembered by path, size and time unless ``verify``)."""
        return key_of(source=self._source.key(verify=verify), ids=self.ids)


def open_images(path: PathLike | ImageCollection, *, skip_bad: bool = False) -> ImageCollection:
    """Open images, wherever they are.

    Args:
        path: A folder of images (with its sub-folders); an uncompressed ``.tar``, or a folder of them, such as the
            shards of a WebDataset; a ``.parquet``, or a folder of them, with the columns ``id`` and ``image`` (the
            encoded bytes, or a struct with ``bytes`` as Hugging Face datasets writes it); or a folder that
            ``datasets.Dataset.save_to_disk`` wrote. Or the URL of one of these: its files are copied to the cache
            folder, and brought up to date when it is opened again.
        skip_bad: Leave out images whose names are not UTF-8, and list them in ``left_out``, instead of stopping.

    Returns:
        The images, with ids in sorted order (folder) or in the files' order. Structs without a column of ids
        (``id`` or ``__key__``) have their ``path`` as id where every row has one of its own, else the row's number.

    Raises:
        LikemindError: Nothing is there, it holds no images, or an id occurs twice.
    """
    if isinstance(path, ImageCollection):
        return path
    place = fetched(path)
    if not os.path.exists(place):  # noqa: PTH110 - a name that is too long is none; Path.exists would raise
        raise LikemindError(f"{place} does not exist: check the path to the images")
    source = _source(place)
    if not source.ids:
        kinds = ", ".join(sorted(SUFFIXES))
        raise LikemindError(f"{place} holds no images ({kinds}): check the path")
    odd = {row for row, name in enumerate(source.ids) if not _is_utf8(name)}
    said = [f"{place} holds a name that is not UTF-8 ({source.ids[row]!a}): rename the file" for row in sorted(odd)]
    if said and not skip_bad:
        raise LikemindError(f"{said[0]}, or pass --skip-bad")
    rows = [row for row in range(len(source.ids)) if row not in odd]
    if len({source.ids[row] for row in rows}) < len(rows):
        twice = Counter(source.ids[row] for row in rows).most_common(1)[0][0]
        raise LikemindError(f"{place} holds the image id {json.dumps(twice)} twice: ids must be unique")
    return ImageCollection(place, source, np.array(rows, dtype=np.int64), said, path if url_of(path) else place)


def _reopened(origin: PathLike, rows: np.ndarray | None, left_out: list[str], ids: str) -> ImageCollection:
    """Open a collection again in another process; ``ids`` is the hash of its ids."""
    images = open_images(origin, skip_bad=bool(left_out))
    if rows is not None:
        images = ImageCollection(images.path, images._source, rows, left_out, origin)  # noqa: SLF001
    if key_of(ids=images.ids) != ids:
        raise LikemindError(f"{origin} holds other images than when this run began: run the same command again")
    return images


def _source(place: Path) -> Source:
    if place.is_file() and place.suffix.lower() == ".tar":
        return Tars(place)
    if place.is_file() and place.suffix.lower() == ".parquet":
        return Parquet(place)
    if not place.is_dir():
        raise LikemindError(f"{place} is neither a folder nor a .tar or .parquet file: point at one of these")
    saved = saved_dataset_files(place)
    if saved is not None:
        return SavedDataset(place, saved)
    names = list(names_below(place, SUFFIXES | {".tar", ".parquet"}))
    tars = sorted(name for name in names if has_suffix(name, {".tar"}))
    tables = sorted(name for name in names if has_suffix(name, {".parquet"}))
    if len(names) > len(tars) + len(tables):  # images themselves: then archives beside them are something else
        return Folder(place, [name for name in names if has_suffix(name, SUFFIXES)])
    if tars and tables:
        raise LikemindError(f"{place} holds tars and Parquet files: point at a folder of one kind")
    return Tars(place, tars) if tars else Parquet(place, tables) if tables else Folder(place, [])


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

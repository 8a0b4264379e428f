"""Images with ids: a folder, a tar, or a Parquet file with an image column."""

from __future__ import annotations

import json
import tarfile
import threading
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np

from likemind.errors import LikemindError, few, first_line
from likemind.hashes import content_hashes, key_of
from likemind.images.decode import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from PIL import Image

    from likemind.artifacts import PathLike

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class _Source(Protocol):
    ids: list[str]

    def read(self, position: int) -> bytes: ...
    def key(self, *, verify: bool) -> str: ...


class ImageCollection:
    """Images that can be read in any order, each with a string id.

    Ids are paths relative to the folder (``cats/tom.jpg``), member names of a tar, or the Parquet column ``id``. Files
    whose names begin with a dot are passed over.

    Example:
        >>> images = open_images("photos/")  # doctest: +SKIP
        >>> images.ids[0], images.read(0).size  # doctest: +SKIP
        ('cats/tom.jpg', (640, 480))
    """

    def __init__(self, path: Path, source: _Source, rows: np.ndarray | None = None) -> None:
        self.path = path
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
        name = f"{self.path}: {self.ids[position]}"
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
        return ImageCollection(self.path, self._source, self._rows[self.positions(ids)])

    def key(self, *, verify: bool = False) -> str:
        """Return a hash of the ids and of all image bytes (remembered by path, size and time unless ``verify``)."""
        return key_of(source=self._source.key(verify=verify), ids=self.ids)


def _is_image_name(name: PurePath) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


class _Folder:
    def __init__(self, path: Path) -> None:
        files = [file for file in path.rglob("*") if _is_image_name(file) and file.is_file()]
        found = sorted((file.relative_to(path).as_posix(), file) for file in files)
        self._files = [file for _, file in found]
        self.ids = [name for name, _ in found]

    def read(self, position: int) -> bytes:
        return self._files[position].read_bytes()

    def key(self, *, verify: bool) -> str:
        return key_of(files=content_hashes(self._files, verify=verify))


class _Tar:
    """Members are found once; each is then read from its offset."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path, "r:") as tar:
                members = [m for m in tar if m.isreg() and not m.issparse() and _is_image_name(PurePosixPath(m.name))]
        except (tarfile.TarError, OSError, ValueError) as error:
            raise LikemindError(f"{path} is not an uncompressed tar ({error}): unpack it, or make it again") from None
        self._spans = [(member.offset_data, member.size) for member in members]
        self.ids = [PurePosixPath(member.name).as_posix() for member in members]

    def read(self, position: int) -> bytes:
        offset, size = self._spans[position]
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def key(self, *, verify: bool) -> str:
        return key_of(files=content_hashes([self._path], verify=verify))


class _Parquet:
    """Columns ``id`` and ``image``: bytes, or a struct with ``bytes`` as Hugging Face datasets write it."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = first_line(error)
            raise LikemindError(f"{path} is not a Parquet file ({reason}): check the path") from None
        names = self._file.schema_arrow.names
        if "id" not in names or "image" not in names:
            raise LikemindError(f"{path} needs the columns 'id' and 'image' (it has {few(names)}): rename them")
        try:
            ids = self._file.read(columns=["id"]).column("id").to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise LikemindError(f"{path} is damaged ({str(error).splitlines()[0]}): make it again") from None
        if None in ids:
            raise LikemindError(f"{path}: row {ids.index(None)} (counting from 0) has no id: fill or remove it")
        self.ids = [str(name) for name in ids]
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._held: tuple[int, pa.ChunkedArray] | None = None
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        with self._lock:  # a ParquetFile that two threads read at once can hang
            if self._held is None or self._held[0] != group:
                self._held = (group, self._file.read_row_group(group, columns=["image"]).column("image"))
            value = self._held[1][position - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise LikemindError(
                f"{self._path}: row {position} ({self.ids[position]!r}) holds no image bytes: fill or remove it"
            )
        return data

    def key(self, *, verify: bool) -> str:
        return key_of(files=content_hashes([self._path], verify=verify))


def open_images(path: PathLike | ImageCollection) -> ImageCollection:
    """Open a folder of images (with its sub-folders), an uncompressed ``.tar``, or a ``.parquet``.

    Args:
        path: Where the images are. A Parquet file needs the columns ``id`` and ``image`` (the encoded bytes).

    Returns:
        The images, with ids in sorted order (folder) or in the file's order.

    Raises:
        LikemindError: Nothing is there, it holds no images, or an id occurs twice.
    """
    if isinstance(path, ImageCollection):
        return path
    place = Path(path)
    if not place.exists():
        raise LikemindError(f"{place} does not exist: check the path to the images")
    source: _Source
    if place.is_dir():
        source = _Folder(place)
    elif place.suffix == ".tar":
        source = _Tar(place)
    elif place.suffix == ".parquet":
        source = _Parquet(place)
    else:
        raise LikemindError(f"{place} is neither a folder nor a .tar or .parquet file: point at one of these")
    if not source.ids:
        kinds = ", ".join(sorted(SUFFIXES))
        raise LikemindError(f"{place} holds no images ({kinds}): check the path")
    for name in source.ids:
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise LikemindError(f"{place} holds a name that is not UTF-8 ({name!a}): rename the file")
    if len(set(source.ids)) < len(source.ids):
        twice = Counter(source.ids).most_common(1)[0][0]
        raise LikemindError(f"{place} holds the image id {json.dumps(twice)} twice: ids must be unique")
    return ImageCollection(place, source)

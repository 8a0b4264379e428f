"""Images with ids: a folder, a tar, or a Parquet file with an image column."""

from __future__ import annotations

import errno
import json
import os
import posixpath
import stat
import tarfile
import threading
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np

from likemind.errors import LikemindError, few, first_line, shown
from likemind.hashes import content_hashes, hashes_or_errors, key_of
from likemind.images.decode import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from PIL import Image

    from likemind.artifacts import PathLike

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_BYTES = 1 << 30
_MOST_LINKS = 40


class _Source(Protocol):
    ids: list[str]

    def read(self, position: int) -> bytes: ...
    def key(self, *, verify: bool) -> str: ...


class ImageCollection:
    """Images that can be read in any order, each with a string id.

    Ids are paths relative to the folder (``cats/tom.jpg``), member names of a tar, or the Parquet column ``id``. They
    are names alone: nothing is ever written to them. Files whose names begin with a dot are passed over, and so is
    whatever is no file (a pipe, a folder named ``x.jpg``). Links to files are followed, links to folders are not.

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
        return ImageCollection(self.path, self._source, self._rows[self.positions(ids)])

    def key(self, *, verify: bool = False) -> str:
        """Return a hash of the ids and of all image bytes (remembered by path, size and time unless ``verify``)."""
        return key_of(source=self._source.key(verify=verify), ids=self.ids)


def _is_image_name(name: PurePath) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


class _Folder:
    def __init__(self, path: Path) -> None:
        found = sorted((file.relative_to(path).as_posix(), file) for file in _image_files(path))
        self._files = [file for _, file in found]
        self.ids = [name for name, _ in found]

    def read(self, position: int) -> bytes:
        with self._files[position].open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size)
            return file.read()

    def key(self, *, verify: bool) -> str:
        """A file that cannot be read has no hash; reading it names it."""
        hashes = hashes_or_errors(self._files, verify=verify)
        return key_of(files=[None if isinstance(sha256, OSError) else sha256 for sha256 in hashes])


def _image_files(path: Path) -> Iterator[Path]:
    """Yield the files with an image's name, in no order; links that lead nowhere too, lest they be lost in silence."""
    folders = [os.fspath(path)]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise LikemindError(f"{folder} cannot be listed ({error.strerror}): give access, or move it away") from None
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif _is_image_name(PurePath(entry.name)) and _is_file_or_lost(entry):
                yield Path(entry.path)


def _is_file_or_lost(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{size:,} bytes, more than the {MAX_BYTES:,} that are admitted")


class _Tar:
    """Members are found once; each is then read from its offset. Links are followed inside the tar alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        members = _members(path)
        files = {posixpath.normpath(member.name): member for member in members}
        kept = [m for m in members if (m.isreg() or m.islnk() or m.issym()) and _is_image_name(PurePosixPath(m.name))]
        self._targets = [_target(member, files) for member in kept]
        self.ids = [PurePosixPath(member.name).as_posix() for member in kept]

    def read(self, position: int) -> bytes:
        member = self._targets[position]
        if member is None:
            raise OSError(errno.ENOENT, "a link to what the tar does not hold")
        if member.issparse():
            raise OSError(errno.EINVAL, "stored as a sparse file")
        _check_size(member.size)
        with self._path.open("rb") as file:
            file.seek(member.offset_data)
            return file.read(member.size)

    def key(self, *, verify: bool) -> str:
        return key_of(files=content_hashes([self._path], verify=verify))


def _members(path: Path) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            after = file.read(tarfile.BLOCKSIZE)
    except Exception as error:  # noqa: BLE001 - a hostile header can make tarfile raise whatever it stumbles over
        reason = first_line(error)
        raise LikemindError(f"{path} is not an uncompressed tar ({reason}): unpack it, or make it again") from None
    if after.strip(b"\0"):  # tarfile takes a damaged header for the end
        raise LikemindError(f"{path} is damaged at byte {end}: make it again")
    return members


def _target(member: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Follow a member's links to a regular member; None where they lead nowhere."""
    found: tarfile.TarInfo | None = member
    for _ in range(_MOST_LINKS):
        if found is None or not (found.islnk() or found.issym()):
            break
        beside = posixpath.dirname(found.name) if found.issym() else ""
        found = files.get(posixpath.normpath(posixpath.join(beside, found.linkname)))
    return found if found is not None and found.isreg() else None


class _Parquet:
    """Columns ``id`` and ``image``: bytes, or a struct with ``bytes`` as Hugging Face datasets write it."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            reason = first_line(error)
            raise LikemindError(f"{path} is not a Parquet file ({reason}): check the path") from None
        self._check_columns()
        try:
            ids = self._file.read(columns=["id"]).column("id").to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise LikemindError(f"{path} is damaged ({first_line(error)}): make it again") from None
        missing = next((row for row, name in enumerate(ids) if name in (None, "")), None)
        if missing is not None:
            raise LikemindError(f"{path}: row {missing} (counting from 0) has no id: fill or remove it")
        self.ids = [str(name) for name in ids]
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._held: tuple[int, pa.ChunkedArray] | None = None
        self._lock = threading.Lock()

    def _check_columns(self) -> None:
        schema = self._file.schema_arrow
        if schema.names.count("id") != 1 or schema.names.count("image") != 1:
            has = few(schema.names)
            raise LikemindError(f"{self._path} needs the columns 'id' and 'image' (it has {has}): rename them")
        if not _is_text(schema.field("id").type):
            raise LikemindError(f"{self._path}: the column 'id' is {schema.field('id').type}: make it text")
        if not _is_bytes(schema.field("image").type):
            kind = schema.field("image").type
            raise LikemindError(f"{self._path}: the column 'image' is {kind}: give the encoded files' bytes")

    def read(self, position: int) -> bytes:
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        with self._lock:  # a ParquetFile that two threads read at once can hang
            if self._held is None or self._held[0] != group:
                self._held = (group, self._row_group(group))
            value = self._held[1][position - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise LikemindError(
                f"{self._path}: row {position} ({self.ids[position]!r}) holds no image bytes: fill or remove it"
            )
        return data

    def _row_group(self, group: int) -> pa.ChunkedArray:
        import pyarrow as pa

        try:
            return self._file.read_row_group(group, columns=["image"]).column("image")
        except (pa.ArrowException, OSError) as error:
            rows = f"rows {self._starts[group]} to {self._starts[group + 1] - 1}"
            raise LikemindError(f"{self._path}: {rows} are damaged ({first_line(error)}): make it again") from None

    def key(self, *, verify: bool) -> str:
        return key_of(files=content_hashes([self._path], verify=verify))


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    return any(test(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary, types.is_null)
    return any(test(kind) for test in tests)


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
    if not os.path.exists(place):  # noqa: PTH110 - a name that is too long is none; Path.exists would raise
        raise LikemindError(f"{place} does not exist: check the path to the images")
    source: _Source
    if place.is_dir():
        source = _Folder(place)
    elif place.suffix == ".tar" and place.is_file():
        source = _Tar(place)
    elif place.suffix == ".parquet" and place.is_file():
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

"""What a collection of images is read from, and the plainest of these: a folder."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

from likemind.errors import LikemindError
from likemind.hashes import hashes_or_errors, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_BYTES = 1 << 30


class Source(Protocol):
    """Encoded images in a fixed order, each with an id; any number of threads may read at once."""

    ids: list[str]

    def read(self, position: int) -> bytes:
        """Return one image's encoded bytes."""
        ...

    def key(self, *, verify: bool) -> str:
        """Return a hash of all that is read."""
        ...


class Folder:
    """Image files below a folder; ids are paths relative to it."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path = path
        self.ids = sorted(names)

    def read(self, position: int) -> bytes:
        """Return one file's bytes."""
        with (self._path / self.ids[position]).open("rb") as file:
            check_size(os.fstat(file.fileno()).st_size)
            return file.read()

    def key(self, *, verify: bool) -> str:
        """Hash all files. One that cannot be read has no hash; reading it names it."""
        hashes = hashes_or_errors([self._path / name for name in self.ids], verify=verify)
        return key_of(files=[None if isinstance(sha256, OSError) else sha256 for sha256 in hashes])


def names_below(path: Path, suffixes: set[str]) -> Iterator[str]:
    """Yield the relative names of files with these suffixes, in no order; links that lead nowhere are not left out.

    Names that begin with a dot are passed over, and so is whatever is no file. Links to folders are not followed.
    """
    folders = [""]
    while folders:
        inside = folders.pop()
        folder = os.path.join(path, inside) if inside else os.fspath(path)  # noqa: PTH118 - a million times
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise LikemindError(f"{folder} cannot be listed ({error.strerror}): give access, or move it away") from None
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{inside}{entry.name}/")
            elif has_suffix(entry.name, suffixes) and _is_file_or_lost(entry):
                yield inside + entry.name


def has_suffix(name: str, suffixes: set[str] = SUFFIXES) -> bool:
    """Say whether a name, without folders, ends so and does not begin with a dot."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in suffixes


def _is_file_or_lost(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def check_size(size: int) -> None:
    """Refuse an image file that is larger than any should be."""
    if size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{size:,} bytes, more than the {MAX_BYTES:,} that are admitted")

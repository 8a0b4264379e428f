"""Images in tars: one, or the shards of a WebDataset. Members are found once, and then read from their offsets."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import posixpath
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from likemind.artifacts import write_atomic
from likemind.errors import LikemindError, first_line
from likemind.hashes import cache_folder, content_hashes, key_of
from likemind.images.sources import check_size, has_suffix

_MOST_LINKS = 40
_LOST, _SPARSE = -1, -2
"""In place of an offset: a link to what the tar does not hold, and a member that is stored as a sparse file."""


class _Index(NamedTuple):
    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray


class Tars:
    """Uncompressed tars, one after the other; ids are member names.

    Where two tars hold members of one name, every id is preceded by its tar's name and a slash. The members' offsets
    are remembered in the cache folder by the tar's path, size and time. Links are followed inside their tar alone.
    """

    def __init__(self, root: Path, names: list[str] | None = None) -> None:
        self._paths = [root] if names is None else [root / name for name in names]
        found = [_index(path) for path in self._paths]
        self._tar = np.repeat(np.arange(len(found)), [len(index.names) for index in found])
        self._offsets = np.concatenate([index.offsets for index in found])
        self._sizes = np.concatenate([index.sizes for index in found])
        self.ids = [name for index in found for name in index.names]
        if names is not None and _overlap(found):
            self.ids = [f"{names[tar]}/{name}" for tar, name in zip(self._tar, self.ids, strict=True)]

    def read(self, position: int) -> bytes:
        """Return one member's bytes."""
        offset, size = int(self._offsets[position]), int(self._sizes[position])
        if offset == _LOST:
            raise OSError(errno.ENOENT, "a link to what the tar does not hold")
        if offset == _SPARSE:
            raise OSError(errno.EINVAL, "stored as a sparse file")
        check_size(size)
        with self._paths[int(self._tar[position])].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def key(self, *, verify: bool) -> str:
        """Hash all tars; with ``verify``, remembered offsets are checked too."""
        if verify:
            for path in self._paths:
                _check_remembered(path)
        return key_of(files=content_hashes(self._paths, verify=verify))


def _overlap(found: list[_Index]) -> bool:
    """Whether two tars share a name; a name that a single tar holds twice is none of this."""
    return len(set().union(*(index.names for index in found))) < sum(len(set(index.names)) for index in found)


def _index(path: Path) -> _Index:
    remembered = _recall(path)
    if remembered is not None:
        return remembered
    index = _scan(path)
    _remember(path, index)
    return index


def _scan(path: Path) -> _Index:
    members = _members(path)
    files = {posixpath.normpath(member.name): member for member in members}
    kept = [m for m in members if (m.isreg() or m.islnk() or m.issym()) and has_suffix(posixpath.basename(m.name))]
    targets = [_target(member, files) for member in kept]
    return _Index(
        [PurePosixPath(member.name).as_posix() for member in kept],
        np.array([_offset(target) for target in targets], dtype=np.int64),
        np.array([0 if target is None else target.size for target in targets], dtype=np.int64),
    )


def _offset(member: tarfile.TarInfo | None) -> int:
    if member is None:
        return _LOST
    return _SPARSE if member.issparse() else member.offset_data


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


def _memory(path: Path) -> Path:
    return cache_folder() / "tars" / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest() + ".arrow")


def _stamp(path: Path) -> dict[bytes, bytes]:
    status = path.stat()
    return {b"index": json.dumps([1, status.st_size, status.st_mtime_ns]).encode()}


def _recall(path: Path) -> _Index | None:
    """Return what is remembered of a tar. The memory only saves time: where it is of no use, the tar is read again."""
    with contextlib.suppress(OSError, pa.ArrowException, KeyError, ValueError):
        with pa.OSFile(os.fspath(_memory(path))) as file, pa.ipc.open_stream(file) as stream:
            table = stream.read_all()
        if table.schema.metadata == _stamp(path):
            names = [name.decode("utf-8", "surrogateescape") for name in table.column("name").to_pylist()]
            return _Index(names, table.column("offset").to_numpy(), table.column("size").to_numpy())
    return None


def _remember(path: Path, index: _Index) -> None:
    names = [name.encode("utf-8", "surrogateescape") for name in index.names]
    columns = {"name": pa.array(names, pa.binary()), "offset": index.offsets, "size": index.sizes}
    sink = pa.BufferOutputStream()
    with contextlib.suppress(OSError):
        table = pa.table(columns).replace_schema_metadata(_stamp(path))
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        _memory(path).parent.mkdir(exist_ok=True)
        write_atomic(_memory(path), sink.getvalue().to_pybytes())


def _check_remembered(path: Path) -> None:
    """Say so if a tar was changed under the same size and time; what is remembered is mended."""
    known, fresh = _recall(path), _scan(path)
    same = known is not None and known.names == fresh.names and np.array_equal(known.offsets, fresh.offsets)
    if known is not None and not (same and np.array_equal(known.sizes, fresh.sizes)):
        _remember(path, fresh)
        raise LikemindError(f"{path} was changed, but its size and time were not: run the same command again")

"""Keys of runs and of files; file hashes are remembered by path, size and time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likemind.progress import log

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


def key_of(**parts: Any) -> str:
    """Return the SHA-256 (hex) of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def cache_folder() -> Path:
    """Where caches live: ``$LIKEMIND_CACHE``, or the system's usual place."""
    import pooch

    folder = Path(os.environ.get("LIKEMIND_CACHE") or pooch.os_cache("likemind"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(path: Path) -> str:
    """Return a file's SHA-256 (hex)."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def content_hashes(paths: list[Path], *, verify: bool = False) -> list[str]:
    """Return each file's SHA-256, remembered by path, size and modification time.

    Args:
        paths: Files to hash.
        verify: Read every byte again instead of trusting what is remembered.
    """
    seen = []
    for path in paths:
        status = path.stat()
        seen.append((os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns))
    known = {} if verify else _recall(seen)
    fresh = {file: digest(path) for file, path in zip(seen, paths, strict=True) if file not in known}
    _remember(fresh)
    return [known.get(file) or fresh[file] for file in seen]


_File = tuple[bytes, int, int]


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(cache_folder() / "hashes.sqlite", timeout=10)) as memory, memory:
        memory.execute("CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INT, mtime INT, sha256 TEXT)")
        yield memory


def _recall(files: list[_File]) -> dict[_File, str]:
    """Return what is remembered. The memory only saves time: where it cannot be used, files are hashed each time."""
    known: dict[_File, str] = {}
    query = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime = ?"
    with contextlib.suppress(sqlite3.Error, OSError), _memory() as memory:
        for file in files:
            row = memory.execute(query, file).fetchone()
            if row is not None:
                known[file] = str(row[0])
    return known


def _remember(hashes: dict[_File, str]) -> None:
    if not hashes:
        return
    try:
        with _memory() as memory:
            rows = [(*file, sha256) for file, sha256 in hashes.items()]
            memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError) as error:
        log.warning("hashes of files cannot be remembered (%s): check the cache folder", error)


def content_hash(path: Path, *, verify: bool = False) -> str:
    """Return one file's SHA-256, remembered as in ``content_hashes``."""
    return content_hashes([path], verify=verify)[0]

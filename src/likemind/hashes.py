"""Keys of runs and of files; file hashes are remembered by path, size and time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likemind.errors import LikemindError
from likemind.progress import log

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


def key_of(**parts: Any) -> str:
    """Return the SHA-256 (hex) of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rank(seed: int, name: str) -> str:
    """Return what to sort names by for an order that nobody picked: the SHA-256 (hex) of ``"{seed}:{name}"``."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


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


_File = tuple[bytes, int, int]


def content_hashes(paths: list[Path], *, verify: bool = False) -> list[str]:
    """Return each file's SHA-256, remembered by path, size and modification time.

    Args:
        paths: Files to hash.
        verify: Read every byte again instead of trusting what is remembered.

    Raises:
        LikemindError: A file cannot be read; it is named.
    """
    found = []
    for path, sha256 in zip(paths, hashes_or_errors(paths, verify=verify), strict=True):
        if isinstance(sha256, OSError):
            reason = sha256.strerror or str(sha256)
            raise LikemindError(f"{path} cannot be read ({reason}): check the path and its permissions")
        found.append(sha256)
    return found


def hashes_or_errors(paths: list[Path], *, verify: bool = False) -> list[str | OSError]:
    """Return what ``content_hashes`` returns, with the error in place of the hash of a file that cannot be read."""
    seen = [_seen(path) for path in paths]
    files = [file for file in seen if not isinstance(file, OSError)]
    known: dict[_File, str | OSError] = {} if verify else dict(_recall(files))
    fresh = {
        file: _digest_or_error(path)
        for file, path in zip(seen, paths, strict=True)
        if not isinstance(file, OSError) and file not in known
    }
    _remember({file: sha256 for file, sha256 in fresh.items() if isinstance(sha256, str)})
    known |= fresh
    return [file if isinstance(file, OSError) else known[file] for file in seen]


def _seen(path: Path) -> _File | OSError:
    try:
        status = path.stat()
        return os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns
    except OSError as error:
        return error


def _digest_or_error(path: Path) -> str | OSError:
    try:
        return digest(path)
    except OSError as error:
        return error


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

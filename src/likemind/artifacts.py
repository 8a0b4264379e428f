"""A directory with a manifest: keyed by what made it, written atomically, checked when read.

A verb works in ``OUT.partial``. At the end everything is flushed to disk, ``run.json`` is written last, and the directory
is renamed to ``OUT``. So ``OUT`` is either whole or absent, and a killed run is continued by the same command.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from likemind.errors import LikemindError
from likemind.progress import log

if TYPE_CHECKING:
    from types import TracebackType

PathLike = str | os.PathLike[str]

_LIBRARIES = ("likemind", "torch", "timm", "numpy", "scipy", "scikit-learn", "Pillow", "pyarrow")
_CHUNK = 1 << 20


def key_of(**parts: Any) -> str:
    """Return the SHA-256 (hex) of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new one, whatever interrupts."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file, or say that it is not one."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise LikemindError(f"{path} does not exist: check the path, or make it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LikemindError(f"{path} is not valid JSON ({error}): make it again") from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cache_folder() -> Path:
    """Where caches live: ``$LIKEMIND_CACHE``, or the system's usual place."""
    import pooch

    folder = Path(os.environ.get("LIKEMIND_CACHE") or pooch.os_cache("likemind"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_hashes(paths: list[Path], *, verify: bool = False) -> list[str]:
    """Return each file's SHA-256, remembered by path, size and modification time.

    Args:
        paths: Files to hash.
        verify: Read every byte again instead of trusting what is remembered.
    """
    with contextlib.closing(sqlite3.connect(cache_folder() / "hashes.sqlite", timeout=60)) as memory, memory:
        memory.execute("CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INT, mtime INT, sha256 TEXT)")
        hashes = []
        for path in paths:
            status = path.stat()
            name, size, mtime = str(path.resolve()), status.st_size, status.st_mtime_ns
            query = "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND mtime = ?"
            known = None if verify else memory.execute(query, (name, size, mtime)).fetchone()
            if known is None:
                known = (_digest(path),)
                memory.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (name, size, mtime, known[0]))
            hashes.append(known[0])
    return hashes


def content_hash(path: Path, *, verify: bool = False) -> str:
    """Return one file's SHA-256, remembered as in ``content_hashes``."""
    return content_hashes([path], verify=verify)[0]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_run(path: PathLike, *, verb: str | None = None, verify: bool = False) -> dict[str, Any]:
    """Read an artifact's ``run.json`` and check its files against it.

    Args:
        path: The artifact's directory.
        verb: The verb that must have made it; any if None.
        verify: Read every file's bytes again; otherwise its size is checked.

    Raises:
        LikemindError: The artifact is missing, unfinished, damaged, or another verb's.
    """
    folder = Path(path)
    if not (folder / "run.json").exists():
        if _partial(folder).exists():
            raise LikemindError(f"{folder} is not finished: run the command that makes it again, it will continue")
        what = f"an output of `likemind {verb}`" if verb else "a likemind artifact"
        raise LikemindError(f"{folder} is not {what} (it has no run.json): check the path")
    run: dict[str, Any] = read_json(folder / "run.json")
    if verb and run.get("verb") != verb:
        raise LikemindError(f"{folder} was made by `likemind {run.get('verb')}`, where an output of `likemind {verb}` is needed")
    for name, (size, sha256) in run["files"].items():
        file = folder / name
        if not file.exists() or file.stat().st_size != size or (verify and _digest(file) != sha256):
            raise LikemindError(f"{file} is not the file that was written: make {folder} again with --overwrite")
    return run


def key_of_path(path: Path, *, verify: bool = False) -> str:
    """Return an artifact's key, or a file's or folder's content hash."""
    if (path / "run.json").exists():
        return str(read_run(path, verify=verify)["key"])
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = [file.relative_to(path).as_posix() for file in files]
        return key_of(files=list(zip(names, content_hashes(files, verify=verify), strict=True)))
    if not path.exists():
        raise LikemindError(f"{path} does not exist: check the path")
    return content_hash(path, verify=verify)


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


class Artifact:
    """One verb's output while it is being made.

    Example:
        >>> import tempfile; from pathlib import Path
        >>> out = Path(tempfile.mkdtemp()) / "numbers"
        >>> with Artifact(out, verb="count", config={"n": 3}, inputs={}) as work:
        ...     if not work.done:
        ...         _ = (work.path / "n.txt").write_text("3")
        >>> (out / "n.txt").read_text(), Artifact(out, verb="count", config={"n": 3}, inputs={}).done
        ('3', True)

    Attributes:
        done: ``out`` already holds this very run; there is nothing to do.
        path: Where to write; what an interrupted run left there is still there.
        figures: Put here what ``run.json`` should tell.

    Raises:
        LikemindError: ``out`` holds another run and ``overwrite`` is false, or another process is at work on it.
    """

    def __init__(
        self,
        out: PathLike,
        *,
        verb: str,
        config: dict[str, Any],
        inputs: dict[str, str],
        recipe_version: int = 1,
        overwrite: bool = False,
    ) -> None:
        self.out = Path(out)
        self.path = _partial(self.out)
        self.key = key_of(verb=verb, config=config, inputs=inputs, recipe_version=recipe_version)
        self.figures: dict[str, Any] = {}
        self._about = {"verb": verb, "recipe_version": recipe_version, "config": config, "inputs": inputs}
        self._overwrite = overwrite
        self._lock: int | None = None
        self._started = time.monotonic()
        self._restore()
        self.done = self._is_done()
        if self.done:
            log.info("%s: unchanged, nothing to do", self.out)

    @property
    def _old(self) -> Path:
        return self.out.with_name(self.out.name + ".old")

    def _restore(self) -> None:
        """Finish or undo a replacement of ``out`` that was cut off between its renames."""
        if self._old.exists() and not self.out.exists():
            if (self.path / "run.json").exists():
                self.path.replace(self.out)
            else:
                self._old.replace(self.out)
        if self._old.exists():
            shutil.rmtree(self._old)

    def _is_done(self) -> bool:
        if not self.out.exists():
            return False
        if (self.out / "run.json").exists() and read_json(self.out / "run.json").get("key") == self.key:
            read_run(self.out)
            return True
        if self.out.is_dir() and not any(self.out.iterdir()):
            return False
        if not self._overwrite:
            raise LikemindError(f"{self.out} already holds something else: choose another --out, or pass --overwrite to replace it")
        return False

    def __enter__(self) -> Self:
        if self.done:
            return self
        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            plan = self.path / "plan.json"
            if plan.exists() and read_json(plan)["key"] != self.key:
                if not self._overwrite:
                    raise LikemindError(
                        f"{self.path} holds an unfinished run with other settings or inputs: "
                        "finish it, remove it, or pass --overwrite to discard it"
                    )
                shutil.rmtree(self.path)
                self.path.mkdir()
                self._take_lock()
            if not plan.exists():
                write_json(plan, {"key": self.key})
        return self

    def _take_lock(self) -> None:
        if os.name != "posix":
            return
        import fcntl

        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LikemindError(f"another process is writing {self.out}: wait for it, or choose another --out") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None and not self.done:
                with _disk_errors(self.path):
                    self._commit()
            elif kind is not None and not self.done and issubclass(kind, LikemindError):
                self._sweep()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _disk_full(self.path) from error
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _commit(self) -> None:
        for leftover in (*self.path.rglob("*.tmp"), self.path / "plan.json"):
            leftover.unlink(missing_ok=True)
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and file.name != "run.json")
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        listed = {file.relative_to(self.path).as_posix(): [file.stat().st_size, _digest(file)] for file in files}
        seconds = round(time.monotonic() - self._started, 2)
        run = {"schema": 1, "key": self.key, **self._about, "figures": self.figures, "versions": versions()}
        write_json(self.path / "run.json", {**run, "seconds": seconds, "files": listed})
        if self.out.exists():
            self.out.replace(self._old)
        self.path.replace(self.out)
        sync_folder(self.out.parent)
        if self._old.exists():
            shutil.rmtree(self._old)
        log.info("%s: written in %.1f s", self.out, seconds)

    def _sweep(self) -> None:
        """Leave nothing behind after a user's mistake, unless finished work is there to be continued."""
        if self.path.exists() and {entry.name for entry in self.path.iterdir()} <= {"plan.json", "metrics.jsonl", "plan.json.tmp"}:
            shutil.rmtree(self.path)


def _disk_full(path: Path) -> LikemindError:
    return LikemindError(f"the disk is full while writing {path}: free some space and run the same command again, it will continue")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(path) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise LikemindError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise LikemindError(f"{path} cannot be a folder, a file stands there: choose another --out") from error
        raise

"""A directory with a manifest: keyed by what made it, written atomically, checked when read.

A verb works in ``OUT.partial``. At the end everything is flushed to disk, ``run.json`` is written last, and the
directory is renamed to ``OUT``. So ``OUT`` is either whole or absent, and the same command continues a killed run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from likemind.errors import LikemindError
from likemind.hashes import content_hash, content_hashes, digest, key_of
from likemind.progress import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PathLike = str | os.PathLike[str]

_LIBRARIES = ("likemind", "torch", "timm", "numpy", "scipy", "scikit-learn", "Pillow", "pyarrow")
_OWN = {"plan.json", "plan.json.tmp", "metrics.jsonl"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""No space, a quota, or a limit on a file's size."""


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
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LikemindError(f"{path} does not exist: check the path, or make it again") from None
    except OSError as error:
        raise LikemindError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
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
    if not isinstance(run, dict) or not {"key", "verb", "files"} <= set(run):
        raise LikemindError(f"{folder / 'run.json'} was not written by likemind: check the path")
    if verb and run["verb"] != verb:
        raise LikemindError(f"{folder} was made by `likemind {run['verb']}`: give an output of `likemind {verb}`")
    for name, (size, sha256) in run["files"].items():
        file = folder / name
        if not file.exists() or file.stat().st_size != size or (verify and digest(file) != sha256):
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
    if out.name in ("", ".."):
        raise LikemindError(f"{out} cannot be written to: name a folder to make")
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
        notes: What an interrupted run noted for the one that continues it; see ``note``.

    Raises:
        LikemindError: ``out`` holds another run and ``overwrite`` is false, or another process is at work on it. What
            likemind did not write is never replaced.
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
        if "://" in os.fspath(out):
            raise LikemindError(f"likemind {verb} writes to no URL ({out}): choose a folder for --out")
        self.out = Path(out)
        self.path = _partial(self.out)
        self.key = key_of(verb=verb, config=config, inputs=inputs, recipe_version=recipe_version)
        self.figures: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        self._about = {"verb": verb, "recipe_version": recipe_version, "config": config, "inputs": inputs}
        self._overwrite = overwrite
        self._lock: int | None = None
        self._started = time.monotonic()
        self.done = self._look()
        if self.done:
            self._tell("unchanged, nothing to do")

    def _look(self) -> bool:
        """Return whether ``out`` holds this very run; a commit that was cut off is finished or undone."""
        try:
            with _disk_errors(self.path):
                unattended = self._try_lock() or not self.path.exists()
                return self._settle() if unattended else self._is_done()
        finally:
            self._unlock()

    def _tell(self, what: str) -> None:
        """Log it, unless this is a part of a larger artifact."""
        if not any(parent.name.endswith(".partial") for parent in self.out.parents):
            log.info("%s: %s", self.out, what)

    @property
    def _old(self) -> Path:
        return self.out.with_name(f".{self.out.name}.replaced")

    def _settle(self) -> bool:
        """Finish or undo a commit that was cut off; return whether ``out`` holds this very run."""
        if self._old.exists():
            if not self.out.exists() and (self.path / "run.json").exists():
                self._publish()
            elif not self.out.exists():
                self._old.replace(self.out)
            shutil.rmtree(self._old, ignore_errors=True)
        if self._is_done():
            return True
        if not self._is_whole():
            return False
        self._publish()
        return True

    def _is_whole(self) -> bool:
        """Whether the partial folder lacks nothing of this very run but its rename."""
        try:
            return (self.path / "run.json").exists() and read_run(self.path, verify=True)["key"] == self.key
        except LikemindError:
            return False

    def _is_done(self) -> bool:
        if not self.out.exists():
            return False
        if not self.out.is_dir():
            raise LikemindError(f"{self.out} is a file: choose another --out")
        if not any(self.out.iterdir()):
            return False
        if not (self.out / "run.json").exists():
            raise LikemindError(f"{self.out} holds files that likemind did not write: choose another --out")
        try:
            if read_json(self.out / "run.json")["key"] == self.key:
                read_run(self.out, verify=self._overwrite)
                return True
        except (LikemindError, KeyError, TypeError):
            if not self._overwrite:
                raise LikemindError(f"{self.out} is damaged: pass --overwrite to make it again") from None
        if not self._overwrite:
            raise LikemindError(
                f"{self.out} already holds something else: choose another --out, or pass --overwrite to replace it"
            )
        return False

    def __enter__(self) -> Self:
        if self.done:
            return self
        try:
            with _disk_errors(self.path):
                self._begin()
        except BaseException:
            self._unlock()
            raise
        return self

    def _begin(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        while not self._try_lock():
            if self.path.exists():
                raise LikemindError(
                    f"another process is writing {self.out}{self._whose()}: wait for it, or choose another --out"
                )
            self.path.mkdir(exist_ok=True)
        self.done = self._settle()
        if self.done:  # another process has made it since
            self._sweep()
            return
        if self._unfinished_key() not in (None, self.key):
            if not self._overwrite:
                raise LikemindError(
                    f"{self.path} holds an unfinished run with other settings or inputs: "
                    "finish it, remove it, or pass --overwrite to discard it"
                )
            for entry in self.path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.notes = self._plan().get("notes", {})
        self.note()
        (self.path / "run.json").unlink(missing_ok=True)

    def note(self, **notes: Any) -> None:
        """Add to ``notes`` what the same command, should this run be killed, will find there; it is on the disk."""
        self.notes |= notes
        write_json(self.path / "plan.json", {"key": self.key, "pid": os.getpid(), "notes": self.notes})

    def _plan(self) -> dict[str, Any]:
        plan = read_json(self.path / "plan.json") if (self.path / "plan.json").exists() else {}
        return plan if isinstance(plan, dict) else {}

    def _whose(self) -> str:
        """Name the process that holds the lock; its number is not known between its locking and its first note."""
        with contextlib.suppress(LikemindError, KeyError):
            return f" (process {self._plan()['pid']})"
        return ""

    def _unfinished_key(self) -> str | None:
        """Return the key of the run whose work is in the partial folder; None if there is no work."""
        for name in ("plan.json", "run.json"):
            if (self.path / name).exists():
                return str(read_json(self.path / name).get("key"))
        return "unknown" if {entry.name for entry in self.path.iterdir()} - _OWN else None

    def _try_lock(self) -> bool:
        """Take the partial folder's lock; False if the folder is not there or another process holds it."""
        if os.name != "posix":
            return self.path.exists()
        import fcntl

        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                self._lock = descriptor
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return False

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None and not self.done:
                with _disk_errors(self.path):
                    self._commit()
            elif kind is not None and not self.done and issubclass(kind, LikemindError):
                self._sweep()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise _disk_full(self.path, error) from error
        finally:
            self._unlock()

    def _commit(self) -> None:
        for leftover in self.path.rglob("*.tmp"):
            leftover.unlink()
        own = {self.path / "plan.json", self.path / "run.json"}
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and file not in own)
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        for folder in {file.parent for file in files}:
            sync_folder(folder)
        listed = {file.relative_to(self.path).as_posix(): [file.stat().st_size, digest(file)] for file in files}
        seconds = round(time.monotonic() - self._started, 2)
        run = {"schema": 1, "key": self.key, **self._about, "figures": self.figures, "versions": versions()}
        write_json(self.path / "run.json", {**run, "seconds": seconds, "files": listed})
        self._publish()
        self._tell(f"written in {seconds:.1f} s")

    def _publish(self) -> None:
        (self.path / "plan.json").unlink(missing_ok=True)
        if self.out.exists():
            self.out.replace(self._old)
        self.path.replace(self.out)
        sync_folder(self.out.parent)
        shutil.rmtree(self._old, ignore_errors=True)

    def _sweep(self) -> None:
        """Leave nothing behind after a user's mistake, unless finished work is there to be continued."""
        if self.path.exists() and {entry.name for entry in self.path.iterdir()} <= _OWN:
            shutil.rmtree(self.path)


def _disk_full(path: Path, error: OSError) -> LikemindError:
    reason = "the disk is full" if error.errno == errno.ENOSPC else f"there is no room ({error.strerror})"
    return LikemindError(
        f"{reason} while writing {path}: free some space and run the same command again, it will continue"
    )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(path, error) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise LikemindError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise LikemindError(f"{path} cannot be a folder, a file stands there: choose another --out") from error
        raise

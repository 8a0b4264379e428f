"""Outputs at URLs: made in the cache folder, then uploaded file by file; ``run.json``, written last, is the commit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from likemind.artifacts import Artifact, read_json, read_run
from likemind.errors import LikemindError
from likemind.objects import Store, mirror_of, path_of, url_of
from likemind.progress import log

if TYPE_CHECKING:
    from likemind.artifacts import PathLike

_MARK = "partial.json"
"""Says which run is being made at a URL."""


def artifact(out: PathLike, **about: Any) -> Artifact:
    """Return the ``Artifact`` for an output at a path or URL; arguments as for ``Artifact``."""
    url = url_of(out)
    return Artifact(path_of(out), **about) if url is None else Published(url, **about)


class Published(Artifact):
    """One verb's output at a URL while it is being made.

    The work goes on in the cache folder, where a run that was killed on this machine is continued. Object stores know
    no locks: on this machine a second process is refused; elsewhere one with other settings or inputs is refused by the
    mark that the first leaves, and one with the same writes the same bytes.
    """

    def __init__(self, url: str, **about: Any) -> None:
        self._store = Store(url)
        super().__init__(mirror_of(url), **about)

    def _tell(self, what: str) -> None:
        log.info("%s: %s", self._store.url, what)

    def _look(self) -> bool:
        with self._store.reached("read"):
            if self._is_published():
                return True
        if self.out.exists() and not self._is_own():
            shutil.rmtree(self.out)  # a copy of what was there before
        done = super()._look()
        if done:
            self._upload()
        return done

    def _is_published(self) -> bool:
        """Say whether this very run is there; refuse to touch another."""
        url, run, mark = self._store.url, self._read("run.json"), self._read(_MARK)
        if run is None and mark is None and self._store.listed():
            raise LikemindError(f"{url} holds files that likemind did not write: choose another --out")
        if run is not None and run.get("key") == self.key and self._is_whole_there(run):
            return True
        if self._overwrite:
            return False
        if run is not None and run.get("key") == self.key:
            raise LikemindError(f"{url} is damaged: pass --overwrite to make it again")
        if run is not None:
            raise LikemindError(
                f"{url} already holds something else: choose another --out, or pass --overwrite to replace it"
            )
        if mark is not None and mark.get("key") != self.key:
            raise LikemindError(
                f"{url} holds an unfinished run with other settings or inputs: finish it, remove it, or pass "
                "--overwrite to discard it"
            )
        return False

    def _is_whole_there(self, run: dict[str, Any]) -> bool:
        listed = self._store.listed()
        return all(name in listed and listed[name]["size"] == size for name, (size, _) in run["files"].items())

    def _is_own(self) -> bool:
        try:
            return bool(read_json(self.out / "run.json")["key"] == self.key)
        except (LikemindError, KeyError, TypeError):
            return False

    def _read(self, name: str) -> dict[str, Any] | None:
        data = self._store.read(name)
        try:
            found = None if data is None else json.loads(data)
        except ValueError:
            found = {}
        return found if found is None or isinstance(found, dict) else {}

    def _begin(self) -> None:
        super()._begin()
        if self.done:
            self._upload()
            return
        with self._store.reached("written"):
            self._note_files(set())

    def _note_files(self, more: set[str]) -> set[str]:
        """Write the mark, with the names of all files that this and earlier runs may have left; return these."""
        run, mark = self._read("run.json") or {}, self._read(_MARK) or {}
        files = more | set(run.get("files", ())) | set(mark.get("files", ()))
        data = json.dumps({"key": self.key, "files": sorted(files)}).encode()
        self._store.fs.pipe_file(self._store.place(_MARK), data)
        return files

    def _commit(self) -> None:
        super()._commit()
        self._upload()

    def _sweep(self) -> None:
        super()._sweep()
        if not self.path.exists():
            with self._store.reached("written"):
                self._remove({_MARK})

    def _upload(self) -> None:
        """Copy the finished files; whoever reads meanwhile finds no ``run.json``, and so no artifact."""
        names = set(read_run(self.out)["files"])
        with self._store.reached("written"):
            stale = self._note_files(names) - names
            self._remove({"run.json"})
            self._remove(stale)
            for name in sorted(names):
                self._store.fs.put_file(str(self.out / name), self._store.place(name))
            self._store.fs.put_file(str(self.out / "run.json"), self._store.place("run.json"))
            self._remove({_MARK})

    def _remove(self, names: set[str]) -> None:
        self._store.fs.invalidate_cache()
        for name in names:
            if self._store.fs.exists(self._store.place(name)):
                self._store.fs.rm_file(self._store.place(name))

"""Inputs at URLs: brought to this machine's cache once, checked, and kept up to date."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from likemind.errors import LikemindError, shown
from likemind.hashes import digest
from likemind.objects import Store, locked, mirror_of, path_of, url_of
from likemind.progress import log

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.artifacts import PathLike

_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What tells an object from an older one of its name; each store's listing has one of these."""
_TOGETHER = 64
"""Objects that are asked for at once."""


class _Object(NamedTuple):
    name: str
    size: int
    stamp: str
    sha256: str | None


def fetched(place: PathLike) -> Path:
    """Return a path to what lies at a path or URL.

    What a URL names (an artifact, a file, or all files below it) is copied to the cache folder. Files that are there
    already, and are the same by size and by the store's own stamp, are not asked for again; those of an artifact are
    checked against the hashes in its ``run.json``. A fetch that is cut off continues.

    Raises:
        LikemindError: Nothing is there, it cannot be reached, or what came is not what was announced.
    """
    url = url_of(place)
    if url is None:
        return path_of(place)
    store, mirror = Store(url), mirror_of(url)
    with locked(mirror), store.reached("read"):
        run = store.read("run.json")
        if run is not None and _same_run(mirror, run):
            return mirror
        wanted = _announced(store) if run is None else _of_artifact(store, run)
        if run is not None:
            (mirror / "run.json").unlink(missing_ok=True)
        _bring(store, wanted, mirror)
        _drop_others(mirror, {one.name for one in wanted})
        if run is not None:
            (mirror / "run.json").write_bytes(run)
    return mirror


def _same_run(mirror: Path, run: bytes) -> bool:
    return (mirror / "run.json").is_file() and (mirror / "run.json").read_bytes() == run


def _of_artifact(store: Store, run: bytes) -> list[_Object]:
    try:
        files = json.loads(run)["files"]
        return [_Object(_safe(store, name), int(size), sha256, sha256) for name, (size, sha256) in files.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, LikemindError):
            raise
        raise LikemindError(f"{store.url}/run.json was not written by likemind: check the address") from None


def _announced(store: Store) -> list[_Object]:
    listed = store.listed()
    if not listed:
        raise LikemindError(f"{store.url} does not exist: check the address")
    found = []
    for name, info in listed.items():
        stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
        found.append(_Object(_safe(store, name), int(info["size"]), stamp, None))
    return found


def _safe(store: Store, name: str) -> str:
    """Refuse a name that would be written outside the mirror."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or "\\" in name or "\0" in name:
        raise LikemindError(f"{store.url} holds an object with an unsafe name ({shown(name)}): rename it")
    return name


def _bring(store: Store, wanted: list[_Object], mirror: Path) -> None:
    """Copy the objects that are not there yet; which stamp a file had is noted batch by batch."""
    notes = mirror.parent.with_suffix(".jsonl")
    known = _noted(notes)
    missing = [one for one in wanted if not _is_there(mirror / one.name, one, known)]
    if missing:
        log.info("%s: fetching %d of %d files", store.url, len(missing), len(wanted))
    for start in range(0, len(missing), _TOGETHER):
        batch = missing[start : start + _TOGETHER]
        places = [mirror / one.name for one in batch]
        halves = [place.with_name(place.name + ".tmp") for place in places]
        for folder in {place.parent for place in places}:
            folder.mkdir(parents=True, exist_ok=True)
        store.fs.get([store.place(one.name) for one in batch], [str(half) for half in halves])
        for one, half, place in zip(batch, halves, places, strict=True):
            if half.stat().st_size != one.size or (one.sha256 and digest(half) != one.sha256):
                raise LikemindError(
                    f"{store.url}/{one.name} is not the file that was announced: run the same command again, or make "
                    "it again"
                )
            half.replace(place)
        with notes.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([one.name, one.size, one.stamp]) + "\n" for one in batch)


def _noted(notes: Path) -> dict[str, tuple[int, str]]:
    known: dict[str, tuple[int, str]] = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []:
        try:
            name, size, stamp = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        known[name] = size, stamp
    return known


def _is_there(place: Path, one: _Object, known: dict[str, tuple[int, str]]) -> bool:
    return known.get(one.name) == (one.size, one.stamp) and place.is_file() and place.stat().st_size == one.size


def _drop_others(mirror: Path, names: set[str]) -> None:
    """Remove what has gone from the store."""
    if mirror.is_dir():
        for file in mirror.rglob("*"):
            if file.is_file() and file.relative_to(mirror).as_posix() not in names:
                file.unlink()

"""`data`: what data sets there are, which are at hand, and how to get the others."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likemind.artifacts import write_atomic
from likemind.datasets.catalogue import CATALOGUE
from likemind.datasets.download import GITHUB, download
from likemind.datasets.photographs import fetch_photographs, pack_folder
from likemind.errors import LikemindError, first_line
from likemind.hashes import cache_folder
from likemind.progress import log

if TYPE_CHECKING:
    from likemind.artifacts import PathLike
    from likemind.datasets.dataset import DataSet
    from likemind.datasets.download import Server


@dataclass(frozen=True)
class Holding:
    """A data set, and whether it is at hand.

    Attributes:
        name: As in ``CATALOGUE``.
        path: Where it lies or would lie.
        state: ``there``; ``download`` or ``ask``, how it can be had; ``wrong``, when its folder is not as published.
        counts: What it holds, where it is there.
        problem: What is wrong with its folder.
    """

    name: str
    path: Path
    state: Literal["there", "download", "ask", "wrong"]
    counts: dict[str, int]
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, and what the catalogue says, as JSON has it."""
        known = CATALOGUE[self.name]
        facts = {name: getattr(known, name) for name in ("title", "licence", "source", "version", "layout", "checksum")}
        about = {"name": self.name, "path": str(self.path), "state": self.state, "counts": self.counts}
        return about | facts | ({"problem": self.problem} if self.problem else {})

    def lines(self) -> list[str]:
        """Return it for people."""
        known = CATALOGUE[self.name]
        counted = ", ".join(f"{number:,} {what}" for what, number in self.counts.items())
        held = {
            "there": f"there: {counted}",
            "download": f"not there; `likemind data {self.name}` downloads it",
            "ask": "not there; no program may download it",
            "wrong": self.problem,
        }[self.state]
        return [
            f"{self.name}: {known.title}",
            f"  {held}",
            f"  folder   {self.path}",
            f"  layout   {known.layout}",
            f"  version  {known.version}",
            f"  source   {known.source}",
            f"  licence  {known.licence}",
            *([f"  sha256   {known.checksum}"] if known.checksum else []),
        ]


def data(name: str | None = None, *, sets: PathLike | None = None, server: Server | None = None) -> list[Holding]:
    """Say which data sets there are and check those at hand; with a name, download that one if it may be.

    A folder that is there is never written to. A download is verified by its checksum, unpacked beside its place,
    checked and then renamed, so that an interrupted one leaves nothing half-done; the same call begins it again.

    Args:
        name: Of a data set; None lists all and downloads nothing.
        sets: The folder of data sets, each in a folder of its own name; None is Likemind's cache.
        server: Where downloads come from, instead of the data set's own source.

    Returns:
        The data set, or all of them.

    Raises:
        LikemindError: There is no such data set; the one that was named is not as published; or it has to be asked for
            (the error says where, and where to put it).

    Example:
        >>> sorted(one.name for one in data(sets="/nonexistent"))[:3]
        ['alignet', 'breeds', 'cichy118']
    """
    root = cache_folder() if sets is None else Path(sets)
    if name is None:
        return [_holding(known, root) for known in CATALOGUE.values()]
    if name not in CATALOGUE:
        raise LikemindError(f"there is no data set {name!r}: choose one of {', '.join(CATALOGUE)}")
    known = CATALOGUE[name]
    found = _holding(known, root)
    if found.state == "wrong":
        raise LikemindError(found.problem)
    if found.state == "ask":
        raise LikemindError(
            f"{name} may not be downloaded by a program: get it from {known.source}, and put it at {found.path} "
            f"({known.layout})"
        )
    if found.state == "download":
        root.mkdir(parents=True, exist_ok=True)
        _fetch(known, root, server)
    return [_holding(known, root)]


def place_of(known: DataSet, root: Path) -> Path:
    """Return a data set's folder below the folder of data sets."""
    return pack_folder(root) if known.name == "photographs" else root / known.name


def _holding(known: DataSet, root: Path) -> Holding:
    place = place_of(known, root)
    if not place.exists():
        return Holding(known.name, place, "download" if known.may_be_downloaded else "ask", {})
    try:
        return Holding(known.name, place, "there", known.check(place))
    except LikemindError as error:
        return Holding(known.name, place, "wrong", {}, str(error))


def _fetch(known: DataSet, root: Path, server: Server | None) -> None:
    if known.name == "photographs":
        fetch_photographs(root, server=server or GITHUB)
    elif known.archive is None:
        raw = root / f"{known.name}.partial"
        download(known.sources, raw, server=server or GITHUB)
        made = raw / "made"
        made.mkdir(exist_ok=True)
        for source in known.sources:
            write_atomic(made / Path(source.path).name, (raw / source.name).read_bytes())
        _settle(known, made, root, raw)
    else:
        archive, host = known.archive
        raw = root / f"{known.name}.partial"
        log.info("%s: %.1f GB from %s", known.name, archive.size / 1e9, (server or host).base_url)
        download([archive], raw, server=server or host)
        made = raw / "made"
        shutil.rmtree(made, ignore_errors=True)
        _unpack(raw / archive.name, made)
        _settle(known, made, root, raw)


def _unpack(path: Path, out: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(out, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise LikemindError(
            f"{path} cannot be unpacked ({first_line(error)}): free some space, and run again"
        ) from None


def _settle(known: DataSet, made: Path, root: Path, raw: Path) -> None:
    """Check what was made and put it in its place."""
    known.check(made)
    inside = list(made.iterdir())
    one = inside[0] if len(inside) == 1 and inside[0].is_dir() else made
    one.replace(root / known.name)
    shutil.rmtree(raw)

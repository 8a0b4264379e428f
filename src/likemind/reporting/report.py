"""From results to one page that stands alone."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from likemind.artifacts import read_run, write_atomic
from likemind.errors import LikemindError
from likemind.hashes import key_of
from likemind.progress import log
from likemind.reporting.clusters import labels_key
from likemind.reporting.evidence import load_evidence
from likemind.reporting.page import render

if TYPE_CHECKING:
    from likemind.artifacts import PathLike

RECIPE_VERSION = 2
_MARK = re.compile(rb'<meta name="likemind-key" content="([0-9a-f]{64})">')
_HEAD = 4096


def report(
    results: PathLike,
    *,
    out: PathLike,
    labels: PathLike | None = None,
    pictures: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write results as one self-contained HTML page.

    The page loads nothing from anywhere and reads without scripts. The same results give the same bytes.

    Args:
        results: A directory that ``evaluate`` wrote.
        out: The page, such as ``runs/demo/report.html``. A page that we wrote is replaced, or left if nothing changed.
        labels: A directory that ``label`` wrote, whose clusters are shown; without, that section is left out.
        pictures: Show the data set's pictures; without, no image file is needed and names stand in their place.
        overwrite: Replace ``out`` even if it is not ours.

    Returns:
        The page's path.

    Raises:
        LikemindError: Results, labels, data or pictures are missing, or ``out`` holds something that is not ours.

    Example:
        >>> report("runs/demo/results", out="runs/demo/report.html")  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    page = Path(out)
    key = key_of(
        verb="report",
        results=str(read_run(results, verb="evaluate")["key"]),
        labels=labels_key(labels),
        pictures=pictures,
        recipe_version=RECIPE_VERSION,
    )
    if _holds(page, overwrite=overwrite) == key:
        log.info("%s: unchanged, nothing to do", page)
        return page
    written = render(load_evidence(results), labels=labels, pictures=pictures, key=key)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(page, written)
    except OSError as error:
        with contextlib.suppress(OSError):
            page.with_name(page.name + ".tmp").unlink()
        raise LikemindError(
            f"{page} cannot be written ({error.strerror}): choose another --out, or free some space"
        ) from error
    log.info("%s: written, %.1f MB", page, len(written) / 1e6)
    return page


def _holds(page: Path, *, overwrite: bool) -> str | None:
    """Return the key of the page that is there; None where there is none, or something that may be replaced.

    Raises:
        LikemindError: ``page`` is a folder, or a file that is not ours.
    """
    if page.is_dir():
        raise LikemindError(f"{page} is a folder: give the page's own name, such as {page / 'report.html'}")
    if not page.exists():
        return None
    with page.open("rb") as file:
        mark = _MARK.search(file.read(_HEAD))
    if mark is None and not overwrite:
        raise LikemindError(f"{page} is not a report of ours: choose another --out, or pass --overwrite to replace it")
    return mark[1].decode() if mark else None

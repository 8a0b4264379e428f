"""One door for files of judgements, whatever their format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from likemind.errors import LikemindError
from likemind.progress import log
from likemind.readers import alignet, embeddings, levels, rating_files, things
from likemind.readers.detect import FORMATS, detect
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.names import read_items
from likemind.readers.ratings import RatingMatrix
from likemind.readers.tables import read_answers
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike

Judgements = Triplets | RatingMatrix | HumanEmbedding

_TABLES = ("parquet", "csv", "tsv")


@dataclass(frozen=True)
class Reading:
    """What was read, in which format, and what there is to say of it, a sentence each."""

    judgements: Judgements
    format: str
    notes: list[str]


@dataclass(frozen=True)
class Request:
    """How to read a file; see ``read_judgements``."""

    format: str | None = None
    source: str | None = None
    items: PathLike | Sequence[str] | None = None
    order: str | None = None
    scale: str | None = None
    variable: str | None = None
    columns: dict[str, str] | None = None


def read_judgements(
    path: PathLike | Judgements,
    *,
    format: str | None = None,  # noqa: A002
    source: str | None = None,
    items: PathLike | Sequence[str] | None = None,
    order: str | None = None,
    scale: str | None = None,
    variable: str | None = None,
    **columns: str,
) -> Judgements:
    """Read judgements of similarity.

    Args:
        path: A file, or a directory that ``likemind label`` wrote. Judgements are returned as they are.
        format: By content if None, where that is unambiguous:

            - ``parquet``, ``csv``, ``tsv``: a row a trial, with columns as below;
            - ``things``: THINGS' release of odd-one-out answers, items counted from 1;
            - ``things-splits``: ``.txt`` or ``.npy``, three numbers a row, counted from 0, the odd one last;
            - ``levels``: the pickle of Levels, of builtin types alone;
            - ``alignet``: AligNet's ``.npz`` of triplets with similarities;
            - ``embedding``: VICE, SPoSE and the like, as ``.npy``, text or table;
            - ``ratings``: a matrix of all pairs, as ``.npy``, ``.mat`` or table.
        source: ``human``, ``human_model``, ``simulated`` or ``pseudo``; what the file or format says if None.
        items: What a file's numbers count: names, a file with one a line, or THINGS' table of concepts. For ``levels``
            and ``alignet``, the images' ids, to which the files' names are joined.
        order: Of an embedding's rows: ``items``, or ``photographs`` (alphabetical by THINGS' reference photographs, as
            VICE is published).
        scale: Of ratings: ``similarity`` or ``dissimilarity``.
        variable: Of a ``.mat`` file.
        columns: A table's names for ``item_0``, ``item_1``, ``item_2`` (ids), ``odd`` (the id of the odd one out) or
            ``choice`` (its position 0–2), ``participant``, ``response_time`` (seconds), ``level``. Names that are
            already these need not be given. Participants are replaced by hashes, but for those of a Parquet table.

    Returns:
        ``Triplets`` for trials, ``HumanEmbedding`` for embeddings, ``RatingMatrix`` for ratings.

    Raises:
        LikemindError: The file, a column or a row is not as it must be; it is named. Or the format is not to be known.

    Example:
        >>> columns = {"item_0": "left", "item_1": "middle", "item_2": "right", "odd": "picked"}
        >>> read_judgements("answers.csv", **columns)  # doctest: +SKIP
        >>> read_judgements("vice.npy", items="things_concepts.tsv", order="photographs")  # doctest: +SKIP
    """
    if isinstance(path, Judgements):
        return path
    found = read(path, Request(format, source, items, order, scale, variable, columns))
    for note in found.notes:
        log.info("%s: %s", path, note)
    return found.judgements


def read_triplets(path: PathLike | Judgements, *, source: str | None = None, **columns: str) -> Triplets:
    """Read judgements that must be odd-one-out trials.

    Raises:
        LikemindError: As ``read_judgements``, or these are an embedding or ratings.
    """
    found = read_judgements(path, source=source, **columns)
    if isinstance(found, Triplets):
        return found
    what = "the judgements are" if isinstance(path, Judgements) else f"{path} holds"
    if isinstance(found, HumanEmbedding):
        raise LikemindError(
            f"{what} an embedding of {len(found)} items, not odd-one-out trials: draw some with "
            "HumanEmbedding.triplets(n)"
        )
    raise LikemindError(f"{what} ratings of {len(found)} items, not odd-one-out trials: give people's answers")


def read(path: PathLike, request: Request) -> Reading:
    """Read a file as asked, and keep what there is to say of it.

    Raises:
        LikemindError: As ``read_judgements``.
    """
    place = Path(path)
    if not place.exists():
        raise LikemindError(f"{place} does not exist: check the path to the judgements")
    if request.format not in (None, *FORMATS):
        raise LikemindError(f"format {request.format!r} is not one of {', '.join(FORMATS)}: name one, or leave it out")
    if place.is_dir():
        return Reading(Triplets.load(place), "labels", [])
    try:
        place.open("rb").close()
    except OSError as error:
        raise LikemindError(f"{place} cannot be read ({error.strerror}): check its permissions") from None
    kind = request.format or detect(place, named=bool(request.columns))
    _check_request(place, kind, request)
    if kind in _TABLES:
        return Reading(read_answers(place, kind, request.source, request.columns or {}), kind, [])
    found, notes = _others(place, kind, request)
    return Reading(found, kind, notes)


def _others(place: Path, kind: str, request: Request) -> tuple[Judgements, list[str]]:
    items = None if request.items is None else read_items(request.items)
    if kind == "embedding":
        return embeddings.read_embedding(place, items, request.source, request.order)
    if kind == "ratings":
        return rating_files.read_ratings(place, items, request.source, request.scale, request.variable)
    readers = {
        "things": things.read_things,
        "things-splits": things.read_things_splits,
        "levels": levels.read_levels,
        "alignet": alignet.read_alignet,
    }
    return readers[kind](place, items, request.source)


def _check_request(place: Path, kind: str, request: Request) -> None:
    """Refuse what this format has no use for, so that nobody thinks it was heeded."""
    only = {
        "columns": (request.columns, _TABLES),
        "items": (request.items, tuple(name for name in FORMATS if name not in _TABLES)),
        "order": (request.order, ("embedding",)),
        "scale": (request.scale, ("ratings",)),
        "variable": (request.variable, ("ratings",)),
    }
    for name, (value, kinds) in only.items():
        if value is not None and value != {} and kind not in kinds:
            raise LikemindError(f"{place} is read as {kind}, where {name} means nothing: leave it out, or pass format")

"""Judgements from a table: Likemind's own Parquet, or anybody's CSV with its columns named."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError, first_line
from likemind.triplets import Triplets, from_item_table, read_table

if TYPE_CHECKING:
    from likemind.artifacts import PathLike

_ITEMS = ("item_0", "item_1", "item_2")


def read_judgements(
    path: PathLike | Triplets,
    *,
    format: str | None = None,  # noqa: A002
    source: str | None = None,
    **columns: str,
) -> Triplets:
    """Read odd-one-out judgements.

    Args:
        path: A ``.parquet``, ``.csv`` or ``.tsv`` file with a row a trial, or a directory that ``likemind label``
            wrote.
        format: ``parquet``, ``csv`` or ``tsv``; by the file's ending if None.
        source: ``human``, ``human_model``, ``simulated`` or ``pseudo``; what the file says, else ``human``, if None.
        columns: The file's names for ``item_0``, ``item_1``, ``item_2`` (ids), ``odd`` (the id of the odd one out) or
            ``choice`` (its position 0–2), ``participant``, ``response_time`` (seconds), ``level``. Names that are
            already these need not be given. Participants of a text file are replaced by hashes.

    Returns:
        The trials.

    Raises:
        LikemindError: The file, a column or a row is not as it must be; it is named.

    Example:
        >>> columns = {"item_0": "left", "item_1": "middle", "item_2": "right", "odd": "picked"}
        >>> read_judgements("answers.csv", **columns)  # doctest: +SKIP
    """
    if isinstance(path, Triplets):
        return path
    place = Path(path)
    if not place.exists():
        raise LikemindError(f"{place} does not exist: check the path to the judgements")
    if place.is_dir():
        return Triplets.load(place)
    kind = format or place.suffix.lstrip(".")
    if kind == "parquet":
        table = read_table(place)
    elif kind in ("csv", "tsv"):
        table = _read_text(place, "," if kind == "csv" else "\t", columns)
    else:
        raise LikemindError(f"{place} is neither .parquet nor .csv nor .tsv: convert it, or pass format")
    if not table.num_rows:
        raise LikemindError(f"{place} holds no judgements: check the path")
    renamed = _renamed(place, table, columns)
    if kind != "parquet" and "participant" in renamed.column_names:
        renamed = _anonymous(renamed)
    try:
        return from_item_table(renamed, source)
    except LikemindError as error:
        raise LikemindError(f"{place}: {error}") from None


def _read_text(place: Path, delimiter: str, columns: dict[str, str]) -> pa.Table:
    from pyarrow import csv

    # Ids are text: read as numbers, 007 would become 7.
    texts = {columns.get(name, name): pa.string() for name in (*_ITEMS, "odd", "participant", "level")}
    try:
        return csv.read_csv(
            place,
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(column_types=texts),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        reason = first_line(error)
        raise LikemindError(f"{place} is not a readable table ({reason}): mend it") from None


def _anonymous(table: pa.Table) -> pa.Table:
    names = [str(name) for name in table.column("participant").to_pylist()]
    hashed = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names]
    return table.set_column(table.column_names.index("participant"), "participant", pa.array(hashed))


def _renamed(place: Path, table: pa.Table, columns: dict[str, str]) -> pa.Table:
    known = (*_ITEMS, "odd", "choice", "participant", "response_time", "level")
    there = table.column_names
    if len(set(there)) < len(there):
        twice = next(name for name in there if there.count(name) > 1)
        raise LikemindError(f"{place} has two columns named {twice!r}: rename one")
    for ours, theirs in columns.items():
        if ours not in known:
            raise LikemindError(f"there is no column {ours!r} in judgements: name one of {', '.join(known)}")
        if theirs not in there:
            raise LikemindError(
                f"{place} has no column {theirs!r} (it has {', '.join(there)}): name another for {ours}"
            )
    metadata = table.schema.metadata
    others = {name: table.column(name) for name in there if name not in columns and name not in columns.values()}
    table = pa.table({ours: table.column(theirs) for ours, theirs in columns.items()} | others)
    table = table.replace_schema_metadata(metadata)
    missing = [name for name in _ITEMS if name not in table.column_names]
    if missing:
        raise LikemindError(
            f"{place} has no column {', '.join(missing)} (it has {', '.join(table.column_names)}): "
            f"say which is which, for example {missing[0]}=NAME"
        )
    return _with_choice(place, table) if "odd" in table.column_names else table


def _with_choice(place: Path, table: pa.Table) -> pa.Table:
    names = np.stack([np.array(table.column(c).to_pylist(), dtype=object).astype(str) for c in _ITEMS], axis=1)
    odd = np.array(table.column("odd").to_pylist(), dtype=object).astype(str)
    match = names == odd[:, None]
    if not match.any(axis=1).all():
        row = int(np.flatnonzero(~match.any(axis=1))[0])
        named = f"the odd one {str(odd[row])!r} is none of its items"
        raise LikemindError(f"{place}: triplet {row} (counting from 0): {named}; mend the row")
    choice = match.argmax(axis=1).astype(np.int8)
    if "choice" in table.column_names:
        differs = np.array(
            [given != found for given, found in zip(table.column("choice").to_pylist(), choice, strict=True)]
        )
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            raise LikemindError(f"{place}: triplet {row} (counting from 0): choice and odd differ; mend the row")
        table = table.drop_columns(["choice"])
    return table.drop_columns(["odd"]).append_column("choice", pa.array(choice))

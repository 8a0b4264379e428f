"""Judgements from a table: Likemind's own Parquet, or anybody's CSV with its columns named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError, first_line
from likemind.readers.names import hashed
from likemind.triplets import Triplets, from_item_table, read_table

if TYPE_CHECKING:
    from pathlib import Path

_ITEMS = ("item_0", "item_1", "item_2")


def read_answers(place: Path, kind: str, source: str | None, columns: dict[str, str]) -> Triplets:
    """Read a table with a row a trial.

    Args:
        place: The file.
        kind: ``parquet``, ``csv`` or ``tsv``.
        source: ``human``, ``human_model``, ``simulated`` or ``pseudo``; what the file says, else ``human``, if None.
        columns: The file's names for ours (see ``read_judgements``). Participants of a text file are replaced by
            hashes.

    Raises:
        LikemindError: The file, a column or a row is not as it must be; it is named.
    """
    table = read_table(place) if kind == "parquet" else _read_text(place, "," if kind == "csv" else "\t", columns)
    if not table.num_rows:
        raise LikemindError(f"{place} holds no judgements: check the path")
    renamed = _renamed(place, table, columns)
    if kind != "parquet" and "participant" in renamed.column_names:
        people = pa.array(hashed(renamed.column("participant")), pa.string())
        renamed = renamed.set_column(renamed.column_names.index("participant"), "participant", people)
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

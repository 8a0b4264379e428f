"""Judgements from a table: Likemind's own Parquet, or anybody's CSV with its columns named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError
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
        path: A ``.parquet``, ``.csv`` or ``.tsv`` file with a row a trial, or a directory that ``likemind label`` wrote.
        format: ``parquet``, ``csv`` or ``tsv``; by the file's ending if None.
        source: ``human``, ``human_model``, ``simulated`` or ``pseudo``; what the file says, else ``human``, if None.
        columns: The file's names for ``item_0``, ``item_1``, ``item_2`` (ids), ``odd`` (the id of the odd one out) or
            ``choice`` (its position 0–2), ``participant``, ``response_time`` (seconds), ``level``. Names that are already
            these need not be given.

    Returns:
        The trials.

    Raises:
        LikemindError: The file, a column or a row is not as it must be; it is named.

    Example:
        >>> read_judgements("answers.csv", item_0="left", item_1="middle", item_2="right", odd="picked")  # doctest: +SKIP
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
        table = _read_text(place, "," if kind == "csv" else "\t")
    else:
        raise LikemindError(f"{place} is neither .parquet nor .csv nor .tsv: convert it, or pass format")
    try:
        return from_item_table(_renamed(place, table, columns), source)
    except LikemindError as error:
        raise LikemindError(f"{place}: {error}") from None


def _read_text(place: Path, delimiter: str) -> pa.Table:
    from pyarrow import csv

    try:
        return csv.read_csv(place, parse_options=csv.ParseOptions(delimiter=delimiter))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise LikemindError(f"{place} is not a readable table ({str(error).splitlines()[0]}): mend it") from None


def _renamed(place: Path, table: pa.Table, columns: dict[str, str]) -> pa.Table:
    known = (*_ITEMS, "odd", "choice", "participant", "response_time", "level")
    for ours, theirs in columns.items():
        if ours not in known:
            raise LikemindError(f"there is no column {ours!r} in judgements: name one of {', '.join(known)}")
        if theirs not in table.column_names:
            raise LikemindError(f"{place} has no column {theirs!r} (it has {', '.join(table.column_names)}): name another for {ours}")
        table = table.set_column(table.column_names.index(theirs), ours, table.column(theirs))
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
        raise LikemindError(f"{place}: triplet {row} (counting from 0): the odd one {odd[row]!r} is none of its items; mend the row")
    return table.drop_columns(["odd"]).append_column("choice", pa.array(match.argmax(axis=1).astype(np.int8)))

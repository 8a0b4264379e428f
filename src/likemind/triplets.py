"""Triplets: three items each, and what is known of how they are judged. The currency of the house."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from likemind.artifacts import PathLike, sync_folder, write_atomic
from likemind.errors import LikemindError, few, first_line
from likemind.pairs import ODD_OF_PAIR, PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Level = Literal["between_class", "class_border", "within_class"]
Source = Literal["human", "human_model", "simulated", "pseudo"]
LEVELS: tuple[str, ...] = get_args(Level)
SOURCES: tuple[str, ...] = get_args(Source)

_ITEM_COLUMNS = ("item_0", "item_1", "item_2")
_ROW_GROUP = 1 << 20
_NAMED = 2**21
"""Items up to which three positions fit into 63 bits."""

_PAIR_OF_POSITIONS = {frozenset(pair): number for number, pair in enumerate(PAIRS)}


@dataclass(frozen=True, eq=False)
class Triplets:
    """Odd-one-out trials, one a row.

    Pairs stand in the order 01, 02, 12; the odd one out of pair 0 is item 2, of pair 1 item 1, of pair 2 item 0.

    Attributes:
        items: Ids of the items that ``indices`` count.
        indices: (n, 3) int32.
        choice: (n,) int8, the position 0–2 that was picked as the odd one out.
        probabilities: (n, 3) by pair, rows summing to one.
        similarities: (n, 3) by pair.
        response_time: (n,) seconds.
        participant: (n,) names.
        level: (n,) of ``between_class``, ``class_border``, ``within_class``.
        source: ``human`` (recorded answers), ``human_model``, ``simulated`` or ``pseudo`` (a teacher's labels).

    Raises:
        LikemindError: A row repeats an item, points outside the items, or holds NaN; the row is named (counting from
            0). Or an id occurs twice in ``items``.

    Example:
        >>> Triplets(["ant", "bee", "car"], np.array([[0, 1, 2]]), choice=np.array([2]), source="human").odd_items
        ['car']
    """

    items: Sequence[str]
    indices: np.ndarray
    choice: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    similarities: np.ndarray | None = None
    response_time: np.ndarray | None = None
    participant: np.ndarray | None = None
    level: np.ndarray | None = None
    source: str = "human"

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        indices = _array(self.indices, "indices")
        if indices.ndim != 2 or indices.shape[1] != 3:
            raise LikemindError(f"triplets need the shape (n, 3), got {indices.shape}: give three items a row")
        _check_indices(indices, len(self.items))
        set_(self, "items", list(self.items))
        if len(set(self.items)) < len(self.items):
            twice = Counter(self.items).most_common(1)[0][0]
            raise LikemindError(f"items holds {twice!r} twice: ids must be unique")
        set_(self, "indices", indices.astype(np.int32))
        for name, shape, convert in _COLUMNS:
            value = getattr(self, name)
            if value is not None:
                array = _array(value, name)
                if array.shape != (len(self), *shape):
                    raise LikemindError(f"{name} needs the shape {(len(self), *shape)}, got {array.shape}: mend it")
                set_(self, name, convert(array, name))
        self._check_columns()

    def _check_columns(self) -> None:
        for name in ("probabilities", "similarities"):
            value = getattr(self, name)
            if value is not None:
                _refuse(~np.isfinite(value).all(axis=1), f"{name} is not finite (NaN or infinite)", "remove or mend it")
        if self.choice is not None:
            wrong = (self.choice < 0) | (self.choice > 2)
            _refuse(wrong, "choice is not 0, 1 or 2", "give the position of the odd one out")
        if self.probabilities is not None:
            wrong = (self.probabilities < 0).any(axis=1) | (np.abs(self.probabilities.sum(axis=1) - 1) > 1e-3)
            _refuse(wrong, "probabilities are negative or do not sum to 1", "normalise them")
        if self.level is not None:
            _refuse(~np.isin(self.level.astype(str), LEVELS), f"level is not one of {', '.join(LEVELS)}", "rename it")
        if self.source not in SOURCES:
            known = ", ".join(SOURCES)
            raise LikemindError(f"source {self.source!r} is not one of {known}: say where the answers come from")

    def __len__(self) -> int:
        return len(self.indices)

    def columns(self) -> dict[str, np.ndarray]:
        """Return the optional columns that are there."""
        named = {field.name: getattr(self, field.name) for field in fields(self)[2:-1]}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def odd_items(self) -> list[str]:
        """Ids of the items that were picked as the odd one out."""
        if self.choice is None:
            raise LikemindError("these triplets hold no choice: read them from recorded answers")
        return [self.items[row[position]] for row, position in zip(self.indices, self.choice, strict=True)]

    @property
    def used_items(self) -> list[str]:
        """Ids of the items that occur in a triplet, in the order of ``items``."""
        return [self.items[index] for index in np.unique(self.indices)]

    def rows(self, which: np.ndarray) -> Triplets:
        """Return the rows chosen by a mask or by positions."""
        columns: dict[str, Any] = {name: value[which] for name, value in self.columns().items()}
        return replace(self, indices=self.indices[which], **columns)

    def within(self, ids: Sequence[str]) -> Triplets:
        """Return the rows whose three items are all among ``ids``."""
        known = set(ids)
        inside = np.array([item in known for item in self.items], dtype=bool)
        return self.rows(inside[self.indices].all(axis=1))

    def positions_in(self, ids: Sequence[str], where: str) -> np.ndarray:
        """Return ``indices`` as (n, 3) positions in ``ids``.

        Raises:
            LikemindError: A judged item is not among them; up to five are named. ``where`` says where was looked.
        """
        place = {name: position for position, name in enumerate(ids)}
        used = np.unique(self.indices)
        missing = [self.items[index] for index in used if self.items[index] not in place]
        if missing:
            named = few(missing)
            raise LikemindError(
                f"the judgements name {len(missing)} items that {where} lacks ({named}): "
                "add their images, or drop those rows"
            )
        table = np.full(len(self.items), -1, dtype=np.int64)
        table[used] = [place[self.items[index]] for index in used]
        positions: np.ndarray = table[self.indices]
        return positions

    def targets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each distinct triplet once, with the distribution over its pairs and its number of answers.

        The distribution is ``probabilities`` where given, else the share of answers for each pair.

        Returns:
            indices (m, 3) with each row sorted, distribution (m, 3) by pair of the sorted row, answers (m,).
        """
        _, first, row_of = np.unique(self.names(), return_index=True, return_inverse=True)
        after = _pairs_after(np.argsort(self.indices, axis=1, kind="stable").astype(np.int8))
        by_pair, rows = self._by_pair(), np.arange(len(self))
        sums = [np.bincount(row_of, by_pair[rows, after[:, pair]], minlength=len(first)) for pair in range(3)]
        answers = np.bincount(row_of, minlength=len(first)).astype(float)
        return np.sort(self.indices[first], axis=1), np.stack(sums, axis=1) / answers[:, None], answers

    def names(self) -> np.ndarray:
        """Return one number for each set of three items, (n,) int64, in the order of sorted rows."""
        low, middle, high = np.sort(self.indices, axis=1).astype(np.int64).T
        items = len(self.items)
        if items <= _NAMED:
            named: np.ndarray = (low * items + middle) * items + high
            return named
        _, pair = np.unique(low * items + middle, return_inverse=True)
        return np.unique(pair.reshape(-1) * items + high, return_inverse=True)[1].reshape(-1)

    def _by_pair(self) -> np.ndarray:
        if self.probabilities is not None:
            return self.probabilities.astype(float)
        if self.choice is None:
            raise LikemindError("these triplets hold no choices or probabilities: read them from recorded answers")
        by_pair: np.ndarray = np.eye(3)[np.array(ODD_OF_PAIR)[self.choice]]  # the map is its own inverse
        return by_pair

    def to_parquet(self, path: PathLike) -> None:
        """Write one file with the items' ids in each row: the layout for judgements.

        Columns ``item_0``, ``item_1``, ``item_2`` and the optional ones; ``source`` is in the file's metadata.
        """
        names = np.array(self.items, dtype=object)
        starts = range(0, max(len(self), 1), _ROW_GROUP)
        _write_blocks(Path(path), (self._item_table(names, slice(start, start + _ROW_GROUP)) for start in starts))

    def _item_table(self, names: np.ndarray, rows: slice) -> pa.Table:
        items = names[self.indices[rows]]
        columns = {c: pa.array(items[:, k], pa.string()).dictionary_encode() for k, c in enumerate(_ITEM_COLUMNS)}
        return pa.table(columns | self._arrow(rows)).replace_schema_metadata({"likemind.source": self.source})

    def save(self, folder: PathLike) -> None:
        """Write ``items.parquet`` and ``triplets.parquet`` with int32 indices: the layout for millions of labels."""
        where = Path(folder)
        write_table(where / "items.parquet", pa.table({"id": pa.array(self.items, pa.string())}))
        table = pa.table({f"index_{k}": self.indices[:, k] for k in range(3)} | self._arrow())
        write_table(where / "triplets.parquet", table.replace_schema_metadata({"likemind.source": self.source}))

    def _arrow(self, rows: slice = slice(None)) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for name, whole in self.columns().items():
            value = whole[rows]
            if value.ndim == 2:
                arrays |= {f"{name}_{k}": value[:, k] for k in range(3)}
            else:
                arrays[name] = pa.array(value, pa.string()).dictionary_encode() if value.dtype == object else value
        return arrays

    @classmethod
    def load(cls, folder: PathLike) -> Triplets:
        """Read what ``save`` wrote."""
        where = Path(folder)
        items = _needed(read_table(where / "items.parquet"), ["id"], where / "items.parquet")[0]
        table = read_table(where / "triplets.parquet")
        indices = _needed(table, [f"index_{k}" for k in range(3)], where / "triplets.parquet")
        columns: dict[str, Any] = columns_of(table)
        return cls(items.to_pylist(), np.stack(indices, axis=1), **columns, source=_source(table))


def columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the optional columns of a table in either layout."""
    found: dict[str, np.ndarray] = {}
    for field in fields(Triplets)[2:-1]:
        if f"{field.name}_0" in table.column_names:
            columns = _needed(table, [f"{field.name}_{k}" for k in range(3)], None)
            found[field.name] = np.stack(columns, axis=1)
        elif field.name in table.column_names:
            column = table.column(field.name)
            text = field.name in ("participant", "level")
            found[field.name] = np.array(column.to_pylist(), dtype=object) if text else column.to_numpy()
    return found


def _needed(table: pa.Table, names: list[str], path: Path | None) -> list[Any]:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        where = "the table" if path is None else str(path)
        raise LikemindError(f"{where} has no column {', '.join(missing)}: make it again")
    return [table.column(name) for name in names]


def _source(table: pa.Table) -> str:
    name: bytes = (table.schema.metadata or {}).get(b"likemind.source", b"human")
    return name.decode(errors="replace")


def from_item_table(table: pa.Table, source: str | None) -> Triplets:
    """Build triplets from a table with the columns ``item_0``, ``item_1``, ``item_2`` and any optional ones."""
    names = np.stack([np.array(table.column(c).to_pylist(), dtype=object) for c in _ITEM_COLUMNS], axis=1)
    missing = (names == None) | (names == "")  # noqa: E711
    _refuse(missing.any(axis=1), "an item is missing", "fill or remove it")
    items, indices = np.unique(names.astype(str), return_inverse=True)
    columns: dict[str, Any] = columns_of(table)
    return Triplets(items.tolist(), indices.reshape(-1, 3), **columns, source=source or _source(table))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def _write_blocks(path: Path, blocks: Iterator[pa.Table]) -> None:
    """Write a Parquet file a row group at a time, atomically, so that one block at a time is in memory."""
    temporary = path.with_name(path.name + ".tmp")
    first = next(blocks)  # what cannot be written is known before there is a file
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
                for table in itertools.chain([first], blocks):
                    writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file, or say what is wrong with it."""
    try:
        return pq.read_table(os.fspath(path), partitioning=None)
    except FileNotFoundError:
        raise LikemindError(f"{path} does not exist: check the path") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = first_line(error)
        raise LikemindError(f"{path} is not a readable Parquet file ({reason}): make it again") from None


def _pairs_after(order: np.ndarray) -> np.ndarray:
    """Return, for each pair of the sorted row, its number in the row as it was."""
    table = np.zeros((3, 3), dtype=np.int8)
    for pair, number in _PAIR_OF_POSITIONS.items():
        a, b = sorted(pair)
        table[a, b] = table[b, a] = number
    return np.stack([table[order[:, a], order[:, b]] for a, b in PAIRS], axis=1)


def _array(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        raise LikemindError(f"{name} has rows of different lengths: give every row the same shape") from None


def _integers(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "O":
        array = _floats(array, name)
    if array.dtype.kind == "f":
        wrong = ~np.isfinite(array) | (array != np.round(np.nan_to_num(array)))
        _refuse(wrong, f"{name} is not a whole number", "remove or mend it")
    elif array.dtype.kind not in "iu":
        raise LikemindError(f"{name} must be whole numbers, got {array.dtype}: give positions 0, 1 or 2")
    whole: np.ndarray = np.clip(array, -1, 3).astype(np.int8)
    return whole


def _floats(array: np.ndarray, name: str) -> np.ndarray:
    """Return numbers as they are if they are floating, else as float64; None is NaN."""
    if array.dtype.kind == "f":
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        row = next(row for row, value in enumerate(array) if not _is_number(value))
        raise LikemindError(f"triplet {row} (counting from 0): {name} is not a number; remove or mend it") from None


def _is_number(value: Any) -> bool:
    try:
        np.asarray(value).astype(np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _seconds(array: np.ndarray, name: str) -> np.ndarray:
    return _floats(array, name).astype(np.float64)


def _words(array: np.ndarray, _: str) -> np.ndarray:
    words: np.ndarray = array.astype(object)
    return words


_COLUMNS: tuple[tuple[str, tuple[int, ...], Callable[[np.ndarray, str], np.ndarray]], ...] = (
    ("choice", (), _integers),
    ("probabilities", (3,), _floats),
    ("similarities", (3,), _floats),
    ("response_time", (), _seconds),
    ("participant", (), _words),
    ("level", (), _words),
)


def _check_indices(indices: np.ndarray, items: int) -> None:
    if indices.dtype.kind == "f":
        _refuse(~np.isfinite(indices).all(axis=1), "an index is NaN", "remove or mend it")
        _refuse((indices != np.round(indices)).any(axis=1), "an index is not a whole number", "remove or mend it")
    elif indices.dtype.kind not in "iu":
        raise LikemindError(f"indices must be whole numbers, got {indices.dtype}: give positions in the list of items")
    _refuse((indices < 0).any(axis=1), "an index is negative", "count items from 0")
    beyond = (indices >= items).any(axis=1)
    _refuse(beyond, f"an index is beyond the {items} items", "count items from 0, or add the missing ones")
    repeated = (indices[:, 0] == indices[:, 1]) | (indices[:, 0] == indices[:, 2]) | (indices[:, 1] == indices[:, 2])
    _refuse(repeated, "an item is repeated", "remove it: a triplet needs three different items")


def _refuse(wrong: Any, what: str, mend: str) -> None:
    if wrong.any():
        count, first = int(wrong.sum()), int(np.flatnonzero(wrong)[0])
        more = f" (and {count - 1} more rows)" if count > 1 else ""
        raise LikemindError(f"triplet {first} (counting from 0){more}: {what}; {mend}")

"""Images in tables: Parquet files, and what Hugging Face datasets writes with ``save_to_disk``."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from likemind.artifacts import read_json
from likemind.errors import LikemindError, few, first_line
from likemind.hashes import content_hashes, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream ends; pyarrow takes the end of the file for it too."""
_HELD = 2
"""Row groups kept in memory: threads that read in turn can stand on either side of a boundary."""


class Parquet:
    """Parquet files, one after the other, with a column of encoded images. See ``_columns`` for the columns."""

    def __init__(self, root: Path, names: list[str] | None = None) -> None:
        self._paths = [root] if names is None else [root / name for name in names]
        parts = [_part(path) for path in self._paths]
        columns, self._image = parts[0].columns, parts[0].columns.image
        for path, part in zip(self._paths, parts, strict=True):
            if part.columns != columns:
                raise LikemindError(f"{path} has other columns than {self._paths[0]}: keep alike files in one folder")
        self._metadata = [part.metadata for part in parts]
        self.ids = _ids(columns, [value for part in parts for value in part.names], root)
        self._groups = [(k, group) for k, meta in enumerate(self._metadata) for group in range(meta.num_row_groups)]
        counts = [self._metadata[k].row_group(group).num_rows for k, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._held: dict[int, pa.ChunkedArray] = {}
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        """Return one row's image bytes."""
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        with self._lock:  # a ParquetFile that two threads read at once can hang
            if group not in self._held:
                while len(self._held) >= _HELD:
                    del self._held[next(iter(self._held))]
                self._held[group] = self._row_group(group)
            value = self._held[group][position - int(self._starts[group])].as_py()
        file = self._paths[self._groups[group][0]]
        return _bytes(value, f"{file}: row {position} ({self.ids[position]!r})")

    def _row_group(self, number: int) -> pa.ChunkedArray:
        file, group = self._groups[number]
        path, image = self._paths[file], self._image
        try:
            with pq.ParquetFile(path, metadata=self._metadata[file]) as opened:
                return opened.read_row_group(group, columns=[image]).column(image)
        except (pa.ArrowException, OSError) as error:
            rows = f"rows {self._starts[number]} to {self._starts[number + 1] - 1}"
            raise LikemindError(f"{path}: {rows} are damaged ({first_line(error)}): make it again") from None

    def key(self, *, verify: bool) -> str:
        """Hash all files."""
        return key_of(files=content_hashes(self._paths, verify=verify))


class SavedDataset:
    """A folder that ``datasets.Dataset.save_to_disk`` wrote: Arrow streams, which are mapped and not read."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self._paths = [root / name for name in names]
        tables = [_mapped(path) for path in self._paths]
        try:
            table = pa.concat_tables(tables)
        except pa.ArrowException as error:
            raise LikemindError(
                f"{root} holds files of different columns ({first_line(error)}): save it again"
            ) from None
        columns = _columns(table.schema, root)
        self._root = root
        self._image = _checked(table.column(columns.image), root)
        self._starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in self._image.chunks], dtype=np.int64)])
        with _damage(root):
            names = _names(columns, table, len(table))
        self.ids = _ids(columns, names, root)

    def read(self, position: int) -> bytes:
        """Return one row's image bytes."""
        chunk = int(np.searchsorted(self._starts, position, side="right")) - 1
        value = self._image.chunk(chunk)[position - int(self._starts[chunk])].as_py()
        return _bytes(value, f"{self._root}: row {position} ({self.ids[position]!r})")

    def key(self, *, verify: bool) -> str:
        """Hash all Arrow files."""
        return key_of(files=content_hashes(self._paths, verify=verify))


def saved_dataset_files(root: Path) -> list[str] | None:
    """Return the Arrow files of a saved Hugging Face dataset; None if a folder is none."""
    splits = root / "dataset_dict.json"
    if splits.is_file():
        names = read_json(splits).get("splits", [])
        raise LikemindError(f"{root} holds the splits {few(names)}: point at the folder of one")
    if not (root / "state.json").is_file() or not (root / "dataset_info.json").is_file():
        return None
    state = read_json(root / "state.json")
    try:
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError):
        return None
    wrong = [name for name in names if Path(name).name != name or not (root / name).is_file()]
    if wrong:
        raise LikemindError(f"{root / 'state.json'} names {few(wrong)}, which {root} does not hold: save it again")
    return names


class _Columns(NamedTuple):
    names: str | None
    image: str
    has_path: bool


class _Part(NamedTuple):
    columns: _Columns
    metadata: pq.FileMetaData
    names: list[Any]


def _part(path: Path) -> _Part:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise LikemindError(f"{path} is not a Parquet file ({first_line(error)}): check the path") from None
    with file:
        columns = _columns(file.schema_arrow, path)
        leaf = columns.names or f"{columns.image}.path"
        with _damage(path):
            table = file.read(columns=[leaf]) if columns.names or columns.has_path else None
            return _Part(columns, file.metadata, _names(columns, table, file.metadata.num_rows))


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise LikemindError(f"{path} is damaged ({first_line(error)}): make it again") from None


def _mapped(path: Path) -> pa.Table:
    try:
        file = pa.memory_map(str(path))
        table = pa.ipc.open_stream(file).read_all()
        end = file.read_at(len(_END), file.size() - len(_END))
    except (pa.ArrowException, OSError) as error:
        raise LikemindError(f"{path} is not an Arrow stream ({first_line(error)}): save the dataset again") from None
    if end != _END:
        raise LikemindError(f"{path} is cut off: save the dataset again")
    return table


def _checked(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Check that offsets stay inside their buffers, so that a damaged file cannot be read beyond its end."""
    try:
        column.validate(full=True)
    except pa.ArrowException as error:
        raise LikemindError(f"{path} is damaged ({first_line(error)}): save the dataset again") from None
    return column


def _columns(schema: pa.Schema, path: Path) -> _Columns:
    """Find the columns of ids and of images.

    Images are ``image``, or else the one struct with ``bytes``. Ids are ``id``, or else WebDataset's ``__key__``;
    without either the structs' ``path``, or the rows' numbers, serve as ids.
    """
    structs = [field.name for field in schema if types.is_struct(field.type) and _is_bytes(field.type)]
    image = "image" if "image" in schema.names else structs[0] if len(structs) == 1 else None
    names = next((name for name in ("id", "__key__") if name in schema.names), None)
    twice = any(schema.names.count(name) > 1 for name in (image, names))
    if image is None or twice or (names is None and image not in structs):
        has = few(schema.names)
        raise LikemindError(f"{path} needs the columns 'id' and 'image' (it has {has}): rename them")
    if names is not None and not _is_text(schema.field(names).type):
        raise LikemindError(f"{path}: the column {names!r} is {schema.field(names).type}: make it text")
    kind = schema.field(image).type
    if not _is_bytes(kind):
        raise LikemindError(f"{path}: the column {image!r} is {kind}: give the encoded files' bytes")
    return _Columns(names, image, types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _names(columns: _Columns, table: pa.Table | None, rows: int) -> list[Any]:
    """Return what may serve as ids: the column of ids, the images' paths, or nothing in each row."""
    if table is None or not (columns.names or columns.has_path):
        return [None] * rows
    if columns.names:
        return list(table.column(columns.names).to_pylist())
    return list(pc.struct_field(table.column(columns.image), "path").to_pylist())


def _ids(columns: _Columns, names: list[Any], path: Path) -> list[str]:
    """Return the ids. Paths serve where every image has one of its own; else the rows' numbers do."""
    if columns.names is None:
        sound = all(names) and len(set(names)) == len(names)
        return [str(name) for name in names] if sound else [str(row) for row in range(len(names))]
    missing = next((row for row, name in enumerate(names) if name in (None, "")), None)
    if missing is not None:
        raise LikemindError(f"{path}: row {missing} (counting from 0) has no id: fill or remove it")
    return [str(name) for name in names]


def _bytes(value: Any, what: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise LikemindError(f"{what} holds no image bytes: fill or remove it")
    return data


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    return any(test(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary, types.is_null)
    return any(test(kind) for test in tests)

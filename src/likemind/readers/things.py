"""THINGS' odd-one-out answers: the release as a table, and its splits as bare numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from likemind.artifacts import write_atomic
from likemind.errors import LikemindError, first_line
from likemind.readers.names import from_zero, hashed, needed, seconds, whole
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from likemind.artifacts import PathLike
    from likemind.readers.names import ItemNames

IMAGES = ("image1", "image2", "image3")
_TYPES = {**dict.fromkeys((*IMAGES, "choice"), pa.int64()), "subject_id": pa.string(), "RT": pa.float64()}


def read_things(path: Path, items: ItemNames | None, source: str | None) -> tuple[Triplets, list[str]]:
    """Read ``triplets_large_final_correctednc_correctedorder.csv``: tab-separated, items counted from 1.

    Columns ``image1``, ``image2``, ``image3`` (numbers of items) and ``choice`` (the odd one's position, 1 to 3, or its
    number), and where they are there ``subject_id`` (hashed) and ``RT`` (milliseconds).

    Args:
        path: The file.
        items: THINGS' concepts, in the order of their table.
        source: Of the triplets; ``human`` if None.

    Returns:
        The trials, and what there is to say of them.

    Raises:
        LikemindError: A column is missing, a number is none, or an odd one is none of its row's three.
    """
    names = needed(items, path)
    table = _table(path)
    numbers = np.stack([table.column(name).to_numpy() for name in IMAGES], axis=1)
    choice = _position(numbers, table.column("choice").to_numpy(), path)
    indices, notes = from_zero(numbers, names, 1, path)
    times = None
    if "RT" in table.column_names:
        times, more = seconds(table.column("RT").to_numpy())
        notes += more
    people = hashed(table.column("subject_id")) if "subject_id" in table.column_names else None
    found = Triplets(
        names.names, indices, choice=choice, participant=people, response_time=times, source=source or "human"
    )
    return found, notes


def _table(path: Path) -> pa.Table:
    from pyarrow import csv

    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline().rstrip("\r\n")
        delimiter = "\t" if "\t" in header else ","
        there = [name for name in _TYPES if name in [cell.strip('"') for cell in header.split(delimiter)]]
        missing = [name for name in (*IMAGES, "choice") if name not in there]
        if missing:
            raise LikemindError(f"{path} has no column {', '.join(missing)}: it is not THINGS' release; check the file")
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),  # only so do errors name the row
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(column_types=_TYPES, include_columns=there),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise LikemindError(f"{path} is not a readable table ({first_line(error)}): mend it") from None
    if not table.num_rows:
        raise LikemindError(f"{path} holds no judgements: check the path")
    for name in (*IMAGES, "choice"):
        if table.column(name).null_count:
            row = table.column(name).is_null().to_pylist().index(True)
            raise LikemindError(f"{path}: triplet {row} (counting from 0) has no {name}; fill or remove it")
    return table


def _position(numbers: np.ndarray, choice: np.ndarray, path: Path) -> np.ndarray:
    """Return the odd one's position, counted from 0, whether it is given as position or as item."""
    if choice.min() >= 0 and choice.max() <= 3 and not (choice.min() == 0 and choice.max() == 3):
        return choice - (1 if choice.min() >= 1 else 0)
    match = numbers == choice[:, None]
    if not match.any(axis=1).all():
        row = int(np.flatnonzero(~match.any(axis=1))[0])
        raise LikemindError(
            f"{path}: triplet {row} (counting from 0): choice {choice[row]} is neither a position from 1 to 3 nor one "
            "of its items; mend the row"
        )
    position: np.ndarray = match.argmax(axis=1)
    return position


def read_things_splits(path: Path, items: ItemNames | None, source: str | None) -> tuple[Triplets, list[str]]:
    """Read a split such as ``trainset.txt`` or ``train_90.npy``: three numbers a row, from 0, the odd one last.

    Args:
        path: A text file or ``.npy``.
        items: What the numbers count.
        source: Of the triplets; ``human`` if None.

    Returns:
        The trials, and what there is to say of them.

    Raises:
        LikemindError: The file does not hold three whole numbers a row, or they do not fit the items.
    """
    names = needed(items, path)
    numbers = read_npy(path) if is_npy(path) else read_numbers(path)
    if numbers.ndim != 2 or numbers.shape[1] != 3 or not len(numbers):
        raise LikemindError(f"{path} needs three numbers a row, got the shape {numbers.shape}: check the file")
    indices, notes = from_zero(whole(numbers, path), names, 0, path)
    last = np.full(len(indices), 2, dtype=np.int8)
    return Triplets(names.names, indices, choice=last, source=source or "human"), notes


def to_things_splits(triplets: Triplets, path: PathLike) -> None:
    """Write three numbers a row, counted from 0 in ``triplets.items``, the odd one last.

    Args:
        triplets: Recorded answers.
        path: A ``.txt`` file, or a ``.npy`` file (int32).

    Raises:
        LikemindError: The triplets hold no choice.

    Example:
        >>> to_things_splits(answers, "trainset.txt")  # doctest: +SKIP
    """
    if triplets.choice is None:
        raise LikemindError("these triplets hold no choice: only recorded answers can be written with the odd one last")
    order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[triplets.choice]
    rows = np.take_along_axis(triplets.indices, order, axis=1)
    buffer = io.BytesIO()
    if Path(path).suffix == ".npy":
        np.save(buffer, rows, allow_pickle=False)
    else:
        np.savetxt(buffer, rows, fmt="%d")
    write_atomic(Path(path), buffer.getvalue())


def is_npy(path: Path) -> bool:
    """Return whether a file begins as ``.npy`` files do."""
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file of numbers, never an object."""
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise LikemindError(f"{path} is not a readable .npy file ({first_line(error)}): make it again") from None
    if array.dtype.kind not in "iufb":
        raise LikemindError(f"{path} holds {array.dtype}, not numbers: check the file")
    return array


def read_numbers(path: Path) -> np.ndarray:
    """Read a text file of numbers, separated by white space or commas, with the same number of them a row."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            delimiter = "," if "," in file.readline() else None
        numbers: np.ndarray = np.loadtxt(path, delimiter=delimiter, ndmin=2, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise LikemindError(f"{path} does not hold the same number of numbers a row ({first_line(error)})") from None
    return numbers

"""Which format a file of judgements has, where its content leaves no doubt."""

from __future__ import annotations

import csv
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError
from likemind.readers import levels, things
from likemind.readers.names import is_number
from likemind.readers.things import is_npy, read_npy

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("parquet", "csv", "tsv", "things", "things-splits", "levels", "alignet", "embedding", "ratings")

_HEAD = 1 << 16


def detect(place: Path, *, named: bool = False) -> str:
    """Return a file's format.

    Args:
        place: The file.
        named: Its columns have been named, so that it is a table of trials.

    Raises:
        LikemindError: It could be several, or none.
    """
    with place.open("rb") as file:
        head = file.read(_HEAD)
    ending = place.suffix.lower().lstrip(".")
    found = _binary(place, head, ending, named) or _text(head, ending, named)
    if found is None:
        raise LikemindError(
            f"{place} is neither .parquet nor .csv nor .tsv, and its content does not tell what it is: "
            f"pass format ({', '.join(FORMATS)})"
        )
    return found


def _binary(place: Path, head: bytes, ending: str, named: bool) -> str | None:
    if head[:4] == b"PAR1":
        return "parquet" if named else _parquet(place)
    if is_npy(place):
        return _array(place)
    if head[:4] == b"PK\x03\x04" and zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            return "alignet" if {"filenames.npy", "similarities.npy"} <= set(archive.namelist()) else None
    if head[:1] == b"\x80" and ending in ("pkl", "pickle"):
        return "levels"
    return {"mat": "ratings", "npz": "alignet", "pkl": "levels", "parquet": "parquet"}.get(ending)


def _parquet(place: Path) -> str:
    from likemind.triplets import read_table

    names = read_table(place).column_names
    if {"item", "to_0"} <= set(names):
        return "ratings"
    if {"item", "dim_0"} <= set(names):
        return "embedding"
    return "levels" if set(levels.NEEDED) <= set(names) else "parquet"


def _array(place: Path) -> str:
    array = read_npy(place)
    square = array.ndim == 2 and array.shape[0] == array.shape[1]
    if array.ndim == 2 and array.shape[1] == 3 and array.dtype.kind in "iu" and not square:
        return "things-splits"
    if square and np.allclose(array, array.T, equal_nan=True):
        return "ratings"
    if array.ndim == 2 and array.dtype.kind == "f" and not square and array.shape[1] > 3:
        return "embedding"
    raise LikemindError(
        f"{place} holds numbers of the shape {array.shape}, which could be several things: "
        "pass format (things-splits, embedding or ratings)"
    )


def _text(head: bytes, ending: str, named: bool) -> str | None:
    table = ending if ending in ("csv", "tsv") else None
    if named:
        return table
    try:
        lines = head.decode("utf-8-sig").splitlines()[:3]
    except UnicodeDecodeError:
        return table
    if len(lines) < 2:
        return table
    tabs = "\t" in lines[0]
    header, first = list(csv.reader(lines[:2], delimiter="\t" if tabs else ","))
    if {*things.IMAGES, "choice"} <= set(header):
        return "things"
    if "image_name" in header and len(first) == len(header):
        return "embedding"
    if len(header) > 2 and first and first[0] == header[1] and not header[0].strip() and not is_number(first[0]):
        return "ratings"
    return table or _numbers(lines[:2])


def _numbers(lines: list[str]) -> str | None:
    """Return what a text of bare numbers is: three whole ones a row, or more than three."""
    rows = [line.replace(",", " ").split() for line in lines]
    if len({len(row) for row in rows}) > 1 or not all(is_number(cell) for row in rows for cell in row):
        return None
    if len(rows[0]) == 3:
        return "things-splits" if all(float(cell).is_integer() for row in rows for cell in row) else None
    return "embedding" if len(rows[0]) > 3 else None

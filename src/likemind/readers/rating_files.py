"""Matrices of ratings as others keep them: ``.npy``, ``.mat`` and tables, of similarities or dissimilarities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError, few, first_line
from likemind.readers.names import is_number, needed, read_rows
from likemind.readers.ratings import RatingMatrix
from likemind.readers.things import is_npy, read_npy

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.readers.names import ItemNames

SCALES = ("similarity", "dissimilarity")


def read_ratings(
    path: Path, items: ItemNames | None, source: str | None, scale: str | None, variable: str | None
) -> tuple[RatingMatrix, list[str]]:
    """Read a matrix of all pairs, or the vector of its upper triangle, row by row.

    Args:
        path: ``.npy``; MATLAB's ``.mat``; a ``.csv`` or ``.tsv`` with names in its first row, its first column, or
            both; or our own Parquet.
        items: Names of the rows; a table's own if None.
        source: ``human`` if None.
        scale: ``similarity`` or ``dissimilarity``. By the diagonal if None: zeros are dissimilarities, one same largest
            value is similarities. A vector is of dissimilarities if None.
        variable: Which of a ``.mat`` file's variables; may be left out where only one can be meant.

    Returns:
        The matrix, as dissimilarities, and what there is to say of it. A similarity becomes the largest one less it.

    Raises:
        LikemindError: The file does not hold one symmetric matrix of numbers for as many items, or it cannot be known
            which way its numbers run.
    """
    if scale not in (None, *SCALES):
        raise LikemindError(f"scale {scale!r} is not similarity or dissimilarity: name one")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        found = RatingMatrix.from_parquet(path)
        return found if source is None else RatingMatrix(found.items, found.dissimilarities, source), []  # type: ignore[arg-type]
    own: list[str] | None = None
    if is_npy(path):
        values = read_npy(path)
    elif path.suffix.lower() == ".mat":
        values = _from_mat(path, variable)
    else:
        own, values = _from_table(path)
    names = items.names if items is not None else own
    matrix, vector = _square(values, path)
    names = needed(items, path).names if names is None else names
    if len(names) != len(matrix):
        raise LikemindError(f"{path} rates {len(matrix)} items, and there are {len(names)} names: give one for each")
    matrix, notes = _dissimilarities(matrix, "dissimilarity" if vector and scale is None else scale, path)
    if vector and scale is None:
        notes = ["a vector of pairs, taken as dissimilarities (scale similarity if it is not)"]
    if items is not None and own is not None and own != items.names:
        raise LikemindError(f"{path} has other names, or another order, than {items.where}: leave items out")
    try:
        return RatingMatrix(names, matrix, source or "human"), notes  # type: ignore[arg-type]
    except LikemindError as error:
        raise LikemindError(f"{path}: {error}") from None


def _square(values: np.ndarray, path: Path) -> tuple[np.ndarray, bool]:
    """Return a matrix, made from its upper triangle where that is what is there, and whether it was."""
    flat = values.reshape(-1) if values.ndim == 1 or (values.ndim == 2 and 1 in values.shape) else None
    if flat is not None and flat.size:
        m = round((1 + math.sqrt(1 + 8 * flat.size)) / 2)
        if m * (m - 1) // 2 != flat.size:
            raise LikemindError(f"{path} holds {flat.size} numbers, which is no number of pairs: check the file")
        matrix = np.zeros((m, m))
        matrix[np.triu_indices(m, 1)] = flat
        return matrix + matrix.T, True
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        mend = "average people's first" if values.ndim == 3 else "give a square one, or the vector of its pairs"
        raise LikemindError(f"{path} holds numbers of the shape {values.shape}, not one matrix: {mend}")
    return values.astype(np.float64), False


def _dissimilarities(matrix: np.ndarray, scale: str | None, path: Path) -> tuple[np.ndarray, list[str]]:
    diagonal = np.diag(matrix)
    blank = np.isnan(diagonal).all()
    other = matrix[~np.eye(len(matrix), dtype=bool)]
    notes: list[str] = []
    if not np.isfinite(other).all():
        return matrix, notes  # which RatingMatrix refuses, and names the item
    if scale is None:
        if (np.abs(diagonal) < 1e-9).all() and other.min(initial=0) >= 0:
            scale = "dissimilarity"
        elif np.ptp(diagonal) < 1e-9 and diagonal[0] >= other.max(initial=-np.inf):
            scale = "similarity"
        else:
            raise LikemindError(f"{path}: its diagonal does not tell if larger is more or less alike: pass scale")
        notes = [f"taken as {'similarities' if scale == 'similarity' else 'dissimilarities'}, by the diagonal"]
    if scale == "similarity":
        top = other.max(initial=-np.inf) if blank else max(float(np.nanmax(diagonal)), other.max(initial=-np.inf))
        matrix = top - matrix
    elif not blank and (np.abs(diagonal) > 1e-9).any():
        row = int(np.flatnonzero(~(np.abs(diagonal) <= 1e-9))[0])
        raise LikemindError(f"{path}: row {row} (counting from 0) is not 0 from itself: are they similarities?")
    matrix = matrix.copy()
    np.fill_diagonal(matrix, 0.0)
    return matrix, notes


def _from_mat(path: Path, variable: str | None) -> np.ndarray:
    from scipy.io import loadmat

    try:
        there = loadmat(path)
    except NotImplementedError:
        raise LikemindError(f"{path} is of MATLAB 7.3: save it with -v7, or as .npy") from None
    except Exception as error:  # noqa: BLE001 - a damaged file can make it say anything
        raise LikemindError(f"{path} is not a readable .mat file ({first_line(error)}): save it again") from None
    arrays = {
        name: value for name, value in there.items() if isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
    }
    if variable is None and len(arrays) > 1:
        arrays = {name: value for name, value in arrays.items() if value.size > 1} or arrays
    if variable is None and len(arrays) == 1:
        variable = next(iter(arrays))
    if variable not in arrays:
        which = "no array of numbers" if not arrays else f"the variables {few(sorted(arrays))}"
        raise LikemindError(f"{path} holds {which}: name one as variable")
    return np.asarray(arrays[variable])


def _from_table(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Return a table's names, if it has any, and its numbers."""
    rows = read_rows(path)
    if not rows:
        raise LikemindError(f"{path} is empty: check the path")
    tall, wide = len(rows), len(rows[-1])
    both = tall == wide and not all(is_number(cell) for cell in rows[0])
    header = rows[0] if both or tall == wide + 1 else None
    body = rows[1:] if header is not None else rows
    first = both or tall == wide - 1
    column = [row[0] for row in body] if first else None
    uneven = next((row for row, cells in enumerate(body) if len(cells) != wide), None)
    if uneven is not None:
        raise LikemindError(f"{path}: row {uneven} (counting from 0) is not as long as the others; mend it")
    try:
        values = np.array([[float(cell or "nan") for cell in row[1 if first else 0 :]] for row in body])
    except ValueError as error:
        raise LikemindError(f"{path} does not hold a matrix of numbers ({first_line(error)}): mend it") from None
    own = None if header is None else header[len(header) - len(body) :]
    if own is not None and column is not None and own != column:
        wrong = next(row for row, pair in enumerate(zip(own, column, strict=True)) if pair[0] != pair[1])
        names = f"{own[wrong]!r} above and {column[wrong]!r} beside"
        raise LikemindError(f"{path}: item {wrong} (counting from 0) is {names}: give both in the same order")
    return own or column, values

"""Names for what other people's files only number, or call by a file's name."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError, few, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from likemind.artifacts import PathLike

CONCEPT = "uniqueID"
"""The column of THINGS' table of concepts that names them."""


@dataclass(frozen=True)
class ItemNames:
    """Names of items, each once.

    Attributes:
        names: In the order in which a file's numbers count them.
        where: Where they come from, for errors.
        concepts: They are THINGS' table of concepts.
    """

    names: list[str]
    where: str
    concepts: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def by_photograph(self) -> list[str]:
        """Return THINGS' concepts in the alphabetical order of their reference photographs' file names.

        Those are ``NAME_01b.jpg`` or alike, so that ``camera1`` comes before ``camera_lens``; in the table it comes
        after. VICE's rows and the index of the 48 objects are published in this order; 21 rows differ.

        Example:
            >>> ItemNames(["camera_lens", "camera1", "ice"], "a list").by_photograph()
            ['camera1', 'camera_lens', 'ice']
        """
        return sorted(self.names, key=lambda name: f"{name}_")


def read_items(items: PathLike | Sequence[str]) -> ItemNames:
    """Read names: a list, a text file with one a line, or THINGS' table of concepts.

    Raises:
        LikemindError: The file is missing or no text, a line is empty, or a name stands there twice.

    Example:
        >>> read_items(["ant", "bee"]).names
        ['ant', 'bee']
    """
    if not isinstance(items, (str, os.PathLike)):
        return _each_once(ItemNames([str(name) for name in items], "items"))
    place = Path(items)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LikemindError(f"{place} does not exist: check the path to the items") from None
    except OSError as error:
        raise LikemindError(f"{place} cannot be read ({error.strerror}): check the path to the items") from None
    except UnicodeDecodeError:
        raise LikemindError(f"{place} is no text: give a file with one name a line") from None
    header = text.partition("\n")[0].rstrip("\r").split("\t")
    if CONCEPT in header:
        return _each_once(ItemNames(_concepts(text, place), str(place), concepts=True))
    if len(header) > 1:
        raise LikemindError(f"{place} has several columns and none is {CONCEPT}: give a file with one name a line")
    names = text.rstrip("\n\r ").splitlines()
    empty = next((line for line, name in enumerate(names, start=1) if not name.strip()), None)
    if empty or not names:
        raise LikemindError(f"{place}: line {empty or 1} is empty; give one name a line")
    return _each_once(ItemNames([name.strip() for name in names], str(place)))


def _concepts(text: str, place: Path) -> list[str]:
    # Some copies of the table are written without quoting, so that a quotation mark is a letter like any other.
    for quoting in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL):
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=quoting) if row]
        if all(len(row) == len(rows[0]) for row in rows):
            return [row[rows[0].index(CONCEPT)] for row in rows[1:]]
    raise LikemindError(f"{place} has rows of different lengths: give THINGS' table of concepts as published")


def _each_once(found: ItemNames) -> ItemNames:
    seen: set[str] = set()
    for name in found.names:
        if name in seen:
            raise LikemindError(f"{found.where} holds {name!r} twice: names must be unique")
        seen.add(name)
    return found


def needed(items: ItemNames | None, where: Path) -> ItemNames:
    """Return the names, or say that this file cannot do without."""
    if items is None:
        raise LikemindError(f"{where} holds numbers alone: pass items, a file with one name a line or THINGS' concepts")
    return items


def from_zero(numbers: np.ndarray, items: ItemNames, rule: int, where: Path) -> tuple[np.ndarray, list[str]]:
    """Return the numbers of items counted from 0, and what there is to say of it.

    Whether they are counted from 0 or from 1 is decided by their range where it fits only one, else by the format.

    Args:
        numbers: Whole numbers, (n, 3).
        items: What they count.
        rule: 0 or 1, from which the format counts.
        where: The file, for errors.

    Raises:
        LikemindError: They fit neither; the first row that is too low or too high is named.
    """
    low, high, n = int(numbers.min()), int(numbers.max()), len(items)
    fits = [base for base in (0, 1) if base <= low and high < n + base]
    if not fits:
        wrong = high if high > n else low if low < 0 else high
        row = int(np.flatnonzero((numbers == wrong).any(axis=1))[0])
        raise LikemindError(
            f"{where}: triplet {row} (counting from 0) holds item {wrong}, and the numbers run from {low} to {high}, "
            f"but {items.where} holds {n} names; give the items that the file counts"
        )
    base = rule if rule in fits else fits[0]
    notes = []
    if len(fits) == 2:
        notes = [f"items are counted from {base}, as this format does (their numbers, {low} to {high}, fit both)"]
    elif base != rule:
        notes = [f"items are counted from {base} though this format counts from {rule}: numbers run {low} to {high}"]
    return numbers - base, notes


def whole(numbers: np.ndarray, where: Path) -> np.ndarray:
    """Return (n, 3) numbers as integers, or name the first row that is not."""
    if numbers.dtype.kind in "iu":
        return numbers.astype(np.int64)
    if numbers.dtype.kind != "f":
        raise LikemindError(f"{where} holds {numbers.dtype}, not numbers of items: check the file and the format")
    wrong = (~np.isfinite(numbers) | (numbers != np.round(numbers))).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise LikemindError(f"{where}: triplet {row} (counting from 0) is not of whole numbers; remove or mend it")
    return numbers.astype(np.int64)


def key(name: str) -> str:
    """Return a file's name without folders and ending.

    Example:
        >>> key("train/n01440764/n01440764_10026.JPEG")
        'n01440764_10026'
    """
    return PurePosixPath(name.replace("\\", "/")).stem


def joined(names: list[str], items: ItemNames | None, where: Path) -> list[str]:
    """Return the id among ``items`` of each file's name; the names themselves without ``items``.

    An id fits if it is the name, or if both are the same without folders and ending.

    Raises:
        LikemindError: A name has no id, or several; up to five are named.
    """
    if items is None:
        return names
    ids = set(items.names)
    by_key: dict[str, list[str]] = {}
    for item in items.names:
        by_key.setdefault(key(item), []).append(item)
    found = [[name] if name in ids else by_key.get(key(name), []) for name in names]
    missing = [name for name, fits in zip(names, found, strict=True) if not fits]
    if missing:
        raise LikemindError(f"{where} names {len(missing)} items that {items.where} lacks ({few(missing)}): add them")
    several = [name for name, fits in zip(names, found, strict=True) if len(fits) > 1]
    if several:
        raise LikemindError(f"{where}: several of {items.where} could be {few(several)}: give whole paths")
    return _each_once(ItemNames([fits[0] for fits in found], f"{where}, by file name,")).names


def hashed(people: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a hash in place of each person's name, the same for the same name.

    Example:
        >>> import pyarrow as pa
        >>> hashed(pa.array(["ann", "bob", "ann"])).tolist()[::2]
        ['9834b18feae61c0c', '9834b18feae61c0c']
    """
    names = [str(name) for name in people.to_pylist()]
    secret = {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in set(names)}
    return np.array([secret[name] for name in names], dtype=object)


def seconds(milliseconds: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return response times in seconds, and what there is to say of them.

    Files that do not say their unit are taken to be in milliseconds, as browsers measure.
    """
    times = milliseconds.astype(np.float64) / 1000
    there = times[np.isfinite(times)]
    if there.size and 0 < float(np.median(there)) < 0.05:
        middle = float(np.median(there))
        return times, [f"response times, taken as milliseconds, have a median of {middle:.4f} s: are they seconds?"]
    return times, []


def is_number(text: str) -> bool:
    """Return whether a table's cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a table of tabs, or of commas where its first line has no tab; empty lines left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            tabs = "\t" in file.readline()
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter="\t" if tabs else ",") if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LikemindError(f"{path} is not a readable table ({first_line(error)}): mend it") from None
    return rows

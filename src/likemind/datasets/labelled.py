"""Photographs with a class each: from folders named after classes, or from a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError, few
from likemind.hashes import rank
from likemind.images.collection import ImageCollection, open_images
from likemind.images.sources import Folder
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class Labelled:
    """Photographs and what each shows.

    Attributes:
        images: The photographs.
        classes: The class of each, such as a WordNet id.
    """

    images: ImageCollection
    classes: list[str]

    def __len__(self) -> int:
        return len(self.classes)

    def counts(self) -> Counter[str]:
        """Return how many photographs each class has."""
        return Counter(self.classes)

    def select(self, rows: Collection[int]) -> Labelled:
        """Return the photographs at these places, in this order."""
        images = self.images.select([self.images.ids[row] for row in rows])
        return Labelled(images, [self.classes[row] for row in rows])

    def of(self, classes: Collection[str]) -> Labelled:
        """Return the photographs of these classes.

        Raises:
            LikemindError: A class has none; classes are counted and up to five named.
        """
        missing = sorted(set(classes) - set(self.classes))
        if missing:
            raise LikemindError(
                f"{self.images.path} has no photographs of {len(missing)} of the {len(set(classes))} classes that are "
                f"needed ({few(missing)}): add them"
            )
        wanted = set(classes)
        return self.select([row for row, name in enumerate(self.classes) if name in wanted])

    def at_most(self, number: int, seed: int = 0) -> Labelled:
        """Return at most so many photographs of each class, by the hash of their ids."""
        count: Counter[str] = Counter()
        kept = []
        for row in sorted(range(len(self)), key=lambda row: rank(seed, self.images.ids[row])):
            count[self.classes[row]] += 1
            if count[self.classes[row]] <= number:
                kept.append(row)
        return self.select(sorted(kept))

    def named(self, name_of: Mapping[str, str]) -> list[str]:
        """Return each photograph's class under another name, such as its superclass's."""
        return [name_of[name] for name in self.classes]


def by_folder(folder: Path, classes: Mapping[str, str], *, what: str, most: int | None = None) -> Labelled:
    """Read photographs whose first folder names their class.

    An archive often unpacks into one folder more: a single folder that is no class is passed through.

    Args:
        folder: Holds a folder for each class.
        classes: A folder's name → the class that it stands for.
        what: What it is, for errors, such as ``ImageNet-A``.
        most: Keep at most so many photographs of a class, by the hash of their names; no byte of the others is read.

    Raises:
        LikemindError: No such folder, class folders that are missing or empty (counted and named), or others.
    """
    place = _inside(folder, classes, what)
    there = _folders(place)
    stray = sorted(there - classes.keys())
    if stray:
        raise LikemindError(
            f"{place} holds {len(stray)} folders that are no class of {what} ({few(stray)}): point at {what}'s own "
            "folder, or move them away"
        )
    images = open_images(place)
    first = [name.partition("/")[0] for name in images.ids]
    lost = sorted(classes.keys() - there)
    empty = sorted((classes.keys() & there) - set(first))
    if lost or empty:
        parts = [f"{len(lost)} have no folder ({few(lost)})"] if lost else []
        parts += [f"{len(empty)} have an empty one ({few(empty)})"] if empty else []
        said = f"{place}: of the {len(classes)} classes of {what}, {' and '.join(parts)}"
        raise LikemindError(f"{said}: add them, not as links")
    loose = [name for name, class_ in zip(images.ids, first, strict=True) if class_ not in classes]
    if loose:
        raise LikemindError(
            f"{place} holds {len(loose)} photographs in no class's folder ({few(loose)}): sort them into folders"
        )
    found = Labelled(images, [classes[name] for name in first])
    if most is None:
        return found
    few_of_each = found.at_most(most)
    return Labelled(ImageCollection(place, Folder(place, few_of_each.images.ids)), few_of_each.classes)


def _inside(folder: Path, classes: Collection[str], what: str) -> Path:
    if not folder.is_dir():
        raise LikemindError(f"{folder} is no folder: put {what} there")
    there = _folders(folder)
    while len(there) == 1 and not there & set(classes):
        folder /= there.pop()
        there = _folders(folder)
    return folder


def _folders(place: Path) -> set[str]:
    """Return the folders in a folder; links to folders are not followed, as in ``open_images``."""
    inside = [entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink()]
    return {entry.name for entry in inside if not entry.name.startswith(".")}


def from_table(path: Path, column: str, keep: Callable[[dict[str, str]], bool] = lambda _: True) -> Labelled:
    """Read photographs from a Parquet file with the columns ``id``, ``image`` and one that names the class.

    Args:
        path: The file.
        column: That names the class; rows where it is empty are left out.
        keep: Says of a row, without its image, whether it is wanted.

    Raises:
        LikemindError: The file is missing, has no such column, or no row that is wanted.
    """
    table = read_table(path)
    missing = [name for name in ("id", "image", column) if name not in table.column_names]
    if missing:
        raise LikemindError(f"{path} has no column {', '.join(missing)}: use a table that names each image's class")
    rows = table.drop_columns(["image"]).to_pylist()
    wanted = [row for row in rows if row[column] and keep(row)]
    if not wanted:
        raise LikemindError(f"{path} holds no photographs that are wanted: use another file")
    images = open_images(path).select([row["id"] for row in wanted])
    return Labelled(images, [row[column] for row in wanted])


def numbers(classes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return each photograph's class as a number, (n,), and the classes' names in order."""
    names, label = np.unique(np.array(classes, dtype=object), return_inverse=True)
    return label.reshape(-1), names.tolist()

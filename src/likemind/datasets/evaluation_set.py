"""A folder that says what to evaluate on: images, judgements, labels and shifts, with their licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from likemind.artifacts import PathLike, key_of_path, read_json, write_json
from likemind.errors import LikemindError
from likemind.hashes import key_of
from likemind.images.collection import ImageCollection, open_images
from likemind.readers.judgements import read_triplets
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import Triplets, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

Split = Literal["train", "validation", "heldout"]


class Description(BaseModel):
    """``dataset.json``.

    Attributes:
        name: First part of every metric id, such as ``emoji``.
        source: Where the answers come from: ``human``, ``human_model`` or ``simulated``.
        about: One sentence that reports print beside every figure.
        images: File or folder of the images, relative to this file.
        judgements: Split → file of judgements, relative to this file.
        shifts: Name → images with the same ids under another look (``outline``), relative to this file.
        tasks: First parts of the few-shot ids, such as ``caltech101/unseen``; ``NAME/heldout`` by default.
        answers: Name → recorded answers about any of the items (``accuracy``), relative to this file. These files, and
            the ratings', may name items or categories; a category's images are averaged.
        ratings: Name → people's dissimilarities of any of the items (``rsa``), relative to this file; a list has one
            file a person.
        twoafc: Name → judgements which of two items is more like a third, a table in the layout of NIGHTS.
        tree: A text file of lines ``parent child`` over the items' categories, such as WordNet's; by default categories
            hang below their groups.
        licences: What → licence and credit.
        showcase: Ids of items that reports show the neighbours of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: Literal["human", "human_model", "simulated"]
    about: str
    images: str
    judgements: dict[Split, str]
    shifts: dict[str, str] = {}
    tasks: str = ""
    answers: dict[str, str] = {}
    ratings: dict[str, str | list[str]] = {}
    twoafc: dict[str, str] = {}
    tree: str = ""
    licences: dict[str, str] = {}
    showcase: list[str] = []


@dataclass(frozen=True)
class Item:
    """One row of ``items.parquet``.

    Attributes:
        id: The image's id.
        name: For people.
        category: Fine class, used by few-shot.
        group: Superordinate group, used by grouping by meaning, or "" where none is known.
        split: ``train``, ``validation`` or ``heldout``.
        fewshot: Split whose few-shot tasks the item serves in (its whole category is unseen in training), or "".
    """

    id: str
    name: str
    category: str
    group: str
    split: str
    fewshot: str


class EvaluationSet:
    """An evaluation folder: ``dataset.json``, ``items.parquet`` and the files that they name.

    Example:
        >>> data = EvaluationSet.load("runs/demo/data")  # doctest: +SKIP
        >>> len(data.judgements("heldout"))  # doctest: +SKIP
        4500
    """

    def __init__(self, path: Path, description: Description, items: list[Item]) -> None:
        self.path = path
        self.description = description
        self.items = items
        self.left_out: frozenset[str] = frozenset()
        self._key: str | None = None

    @classmethod
    def load(cls, path: PathLike | EvaluationSet) -> EvaluationSet:
        """Open an evaluation folder.

        Raises:
            LikemindError: A file is missing or not as it must be.
        """
        if isinstance(path, EvaluationSet):
            return path
        folder = Path(path)
        try:
            description = Description.model_validate(read_json(folder / "dataset.json"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise LikemindError(f"{folder / 'dataset.json'}: {where}: {first['msg'].lower()}; mend it") from None
        return cls(folder, description, _items(folder / "items.parquet"))

    def without(self, ids: Sequence[str]) -> EvaluationSet:
        """Return the same set without some items, and without the judgements about them."""
        if not ids:
            return self
        gone = self.left_out | set(ids)
        left = EvaluationSet(self.path, self.description, [item for item in self.items if item.id not in gone])
        left.left_out, left._key = gone, self._key
        return left

    @property
    def key(self) -> str:
        """Hash of all its files."""
        if self._key is None:
            names = ["dataset.json", "items.parquet", self.description.images]
            about = self.description
            for named in (about.judgements, about.shifts, about.answers, about.twoafc):
                names += named.values()
            names += [name for one in about.ratings for name in self.rating_files(one)]
            names += [about.tree] if about.tree else []
            self._key = key_of(files={name: key_of_path(self.path / name) for name in names})
        return self._key

    def images(self, shift: str | None = None) -> ImageCollection:
        """Return the images, or the same items under a shift."""
        if shift is None:
            return open_images(self.path / self.description.images)
        if shift not in self.description.shifts:
            known = ", ".join(self.description.shifts) or "none"
            raise LikemindError(f"{self.path} has no shift {shift!r} (it has {known}): name it in dataset.json")
        return open_images(self.path / self.description.shifts[shift])

    def judgements(self, split: Split) -> Triplets:
        """Return a split's judgements."""
        if split not in self.description.judgements:
            raise LikemindError(f"{self.path} has no judgements for {split}: name their file in dataset.json")
        found = read_triplets(self.path / self.description.judgements[split], source=self.description.source)
        found = found.within([name for name in found.items if name not in self.left_out]) if self.left_out else found
        allowed = {item.id for item in self.items if item.split == split}
        stray = [name for name in found.used_items if name not in allowed]
        if stray:
            raise LikemindError(
                f"{self.path}: the {split} judgements name {len(stray)} items that are not {split} items "
                f"({stray[0]!r}): mend the split"
            )
        return found

    def answers(self, name: str) -> Triplets:
        """Return recorded answers about any of the items, those about others left out."""
        found = read_triplets(self.path / self.description.answers[name])
        return found.within(list(self.rows_of(found.items)))

    def rating_files(self, name: str) -> list[str]:
        """Return the files of one study's ratings: one, or one a person."""
        named = self.description.ratings[name]
        return [named] if isinstance(named, str) else named

    def ratings(self, name: str) -> RatingMatrix:
        """Return people's dissimilarities of any of the items, those of others left out; several people's mean."""
        people = self.ratings_of_each(name)
        mean = np.mean([one.dissimilarities for one in people], axis=0)
        return RatingMatrix(people[0].items, mean, people[0].source)

    def ratings_of_each(self, name: str) -> list[RatingMatrix]:
        """Return each person's dissimilarities, or the one matrix that there is.

        Raises:
            LikemindError: People rated different items.
        """
        found = [RatingMatrix.from_parquet(self.path / file) for file in self.rating_files(name)]
        if not found:
            raise LikemindError(f"{self.path}: the ratings {name!r} name no file; mend dataset.json")
        if any(list(one.items) != list(found[0].items) for one in found):
            raise LikemindError(
                f"{self.path}: the people of {name!r} rated different items: give each the same, in order"
            )
        return [one.within(list(self.rows_of(one.items))) for one in found]

    def rows_of(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Return, for each name that is an item's id or category, the rows of its items."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            rows.setdefault(item.category, []).append(row)
        rows |= {item.id: [row] for row, item in enumerate(self.items)}
        return {name: rows[name] for name in names if name in rows}

    def select(self, split: Split | None = None, *, fewshot: Split | None = None) -> list[Item]:
        """Return the items of a split, or those whose categories serve in its few-shot tasks."""
        chosen = self.items if split is None else [item for item in self.items if item.split == split]
        return chosen if fewshot is None else [item for item in chosen if item.fewshot == fewshot]


def _items(path: Path) -> list[Item]:
    table: pa.Table = read_table(path)
    missing = [name for name in Item.__annotations__ if name not in table.column_names]
    if missing:
        raise LikemindError(f"{path} has no column {', '.join(missing)}: add it")
    names = tuple(Item.__annotations__)
    rows = [Item(*("" if row[name] is None else str(row[name]) for name in names)) for row in table.to_pylist()]
    splits = get_args(Split)
    for number, row in enumerate(rows):
        if not row.id or row.split not in splits or row.fewshot not in (*splits, ""):
            raise LikemindError(
                f"{path}: row {number} (counting from 0): id {row.id!r}, split {row.split!r}, fewshot {row.fewshot!r}: "
                f"an id is needed, splits are {', '.join(splits)}; mend the row"
            )
    if len({row.id for row in rows}) < len(rows):
        ids, counts = np.unique([row.id for row in rows], return_counts=True)
        raise LikemindError(f"{path} holds the id {str(ids[counts > 1][0])!r} twice: ids must be unique")
    return rows


def write_description(folder: Path, description: Description) -> None:
    """Write ``dataset.json``."""
    write_json(folder / "dataset.json", description.model_dump(mode="json"))

"""Tests of whether what was learned on one kind of photographs holds on another: which there are, and from what.

A shift names photographs to learn from, others of the same kind to test on (source), and those of another kind
(target). They lie in one folder, each data set in a folder of its own, as ``likemind data NAME`` says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from likemind.datasets import imagenet as kin
from likemind.datasets.breeds import LIVING, NONLIVING, TASKS, Hierarchy, Rule, Superclass, split
from likemind.datasets.labelled import Labelled, from_table
from likemind.datasets.photographs import pack_folder
from likemind.errors import LikemindError
from likemind.hashes import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from likemind.artifacts import PathLike

PER_CLASS = 100
"""Most photographs of each class of ImageNet's ``train/`` that a read-out learns from, by the hash of their names."""

TINY_TASKS = {
    "tiny-entity14": Rule(3, 4),
    "tiny-entity36": Rule(4, 2),
    "tiny-living7": Rule(5, 2, LIVING),
    "tiny-nonliving15": Rule(5, 2, NONLIVING),
}
"""BREEDS' levels and ancestors, with fewer subclasses: Tiny-ImageNet has 181 classes in the hierarchy."""

_TINY, _SAMPLE = "photos/tiny_imagenet.parquet", "photos/imagenet_sample.parquet"
_CALTECH = "photos/caltech101.parquet"


@dataclass(frozen=True)
class Side:
    """Photographs of some classes of a collection.

    Attributes:
        collection: A key of ``COLLECTIONS``.
        classes: Those that are used.
    """

    collection: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Shift:
    """What to learn and where to test it.

    Attributes:
        name: First part of its metrics' ids, such as ``living17``.
        train: To learn from.
        target: Photographs of another kind.
        source: Photographs as in training, or None where there are none.
        label_of: Class → what is to be recognised, such as its superclass; the class itself if it is not named.
        by_class: Intervals resample classes, and not photographs: it is new classes that the shift is about.
    """

    name: str
    train: Side
    target: Side
    source: Side | None
    label_of: dict[str, str] = field(default_factory=dict)
    by_class: bool = False

    @property
    def sides(self) -> list[Side]:
        """All photographs that it needs."""
        return [side for side in (self.train, self.source, self.target) if side is not None]

    def labels(self, classes: Sequence[str]) -> list[str]:
        """Return what is to be recognised on photographs of these classes."""
        return [self.label_of.get(name, name) for name in classes]


def _imagenet_train(root: Path) -> Labelled:
    return kin.imagenet(root / "imagenet", "train", most=PER_CLASS)


def _tiny(root: Path, part: Literal["train", "val"]) -> Labelled:
    if (pack_folder(root) / _TINY).is_file():
        return from_table(pack_folder(root) / _TINY, "wnid", lambda row: row["split"] == part)
    return kin.tiny_imagenet(root / "tiny-imagenet", part)


COLLECTIONS: dict[str, Callable[[Path], Labelled]] = {
    "imagenet-train": _imagenet_train,
    "imagenet-val": lambda root: kin.imagenet(root / "imagenet", "val"),
    "imagenet-a": lambda root: kin.imagenet_a(root / "imagenet-a"),
    "imagenet-r": lambda root: kin.imagenet_r(root / "imagenet-r"),
    "imagenet-sketch": lambda root: kin.imagenet_sketch(root / "imagenet-sketch"),
    "imagenet-v2": lambda root: kin.imagenet_v2(root / "imagenet-v2"),
    "tiny-train": partial(_tiny, part="train"),
    "tiny-val": partial(_tiny, part="val"),
    "sample": lambda root: from_table(pack_folder(root) / _SAMPLE, "wnid"),
}
"""Name → how its photographs are read below the folder of data sets."""

_CLASSES: dict[str, Literal["imagenet", "imagenet_a", "imagenet_r"]] = {
    "imagenet-a": "imagenet_a",
    "imagenet-r": "imagenet_r",
    "imagenet-sketch": "imagenet",
    "imagenet-v2": "imagenet",
}


def find_shifts(root: Path) -> list[Shift]:
    """Return the shifts whose data sets are all in a folder; the photographs themselves are not looked at yet.

    With ``imagenet/``: ``imagenet-a``, ``-r``, ``-sketch`` and ``-v2``, each where its folder is there, and the four
    tasks of BREEDS (random splits) where ``breeds/`` is. With ``breeds/`` and Tiny-ImageNet: four tasks of this kind
    on its classes. With ``breeds/`` and the pack's one photograph of each class of ImageNet: BREEDS' four on these,
    without a source to test on.

    Raises:
        LikemindError: The folder is not there, or BREEDS' files are not as they must be.
    """
    if not root.is_dir():
        raise LikemindError(f"{root} is no folder of data sets: see `likemind data`")
    found: list[Shift] = []
    whole = (root / "imagenet").is_dir()
    for name, part in _CLASSES.items():
        if whole and (root / name).is_dir():
            classes = kin.imagenet_classes(part)
            train, source = Side("imagenet-train", classes), Side("imagenet-val", classes)
            found.append(Shift(name, train, Side(name, classes), source))
    if (root / "breeds").is_dir():
        found += _breeds(root, whole=whole)
    return found


def _breeds(root: Path, *, whole: bool) -> list[Shift]:
    tree = Hierarchy.load(root / "breeds")
    found = []
    if whole:
        found += [_breed(name, split(tree, rule), "imagenet-train", "imagenet-val") for name, rule in TASKS.items()]
    if (pack_folder(root) / _TINY).is_file() or (root / "tiny-imagenet").is_dir():
        known = set(_tiny(root, "val").classes)
        small = Hierarchy.load(root / "breeds", classes=known)
        found += [_breed(name, split(small, rule), "tiny-train", "tiny-val") for name, rule in TINY_TASKS.items()]
    if (pack_folder(root) / _SAMPLE).is_file():
        found += [_breed(f"sample-{name}", split(tree, rule), "sample", None) for name, rule in TASKS.items()]
    return found


def _breed(name: str, superclasses: Sequence[Superclass], train: str, test: str | None) -> Shift:
    source = tuple(wnid for one in superclasses for wnid in one.source)
    target = tuple(wnid for one in superclasses for wnid in one.target)
    label_of = {wnid: one.wnid for one in superclasses for wnid in (*one.source, *one.target)}
    tested = None if test is None else Side(test, source)
    return Shift(name, Side(train, source), Side(test or train, target), tested, label_of, by_class=True)


class ShiftSets:
    """A folder of data sets, and what of it shifts need; photographs are listed when they are asked for.

    Attributes:
        root: The folder.
        shifts: As ``find_shifts`` found them.
        corrupts: Whether the pack's Caltech-101 is there, which common corruptions are shown on.

    Example:
        >>> [shift.name for shift in ShiftSets("data").shifts]  # doctest: +SKIP
        ['tiny-entity14', 'tiny-entity36', 'tiny-living7', 'tiny-nonliving15']
    """

    def __init__(self, root: PathLike) -> None:
        self.root = Path(root)
        self.shifts = find_shifts(self.root)
        self.corrupts = (pack_folder(self.root) / _CALTECH).is_file()
        self._opened: dict[str, Labelled] = {}
        if not self.shifts and not self.corrupts:
            raise LikemindError(f"{root} has none of the data sets that robustness is tested on: see `likemind data`")

    def labelled(self, collection: str) -> Labelled:
        """Return the photographs of a collection that any shift needs.

        Raises:
            LikemindError: Its folder is not as published, or lacks a class.
        """
        if collection not in self._opened:
            sides = [side for shift in self.shifts for side in shift.sides if side.collection == collection]
            needed = {name for side in sides for name in side.classes}
            self._opened[collection] = COLLECTIONS[collection](self.root).of(needed)
        return self._opened[collection]

    def caltech(self, part: Literal["train", "test"]) -> Labelled:
        """Return the pack's Caltech-101 by its split, without ``Faces_easy``, which shows ``Faces`` again."""
        return from_table(
            pack_folder(self.root) / _CALTECH,
            "class_name",
            lambda row: row["split"] == part and row["class_name"] != "Faces_easy",
        )

    @cached_property
    def key(self) -> str:
        """Hash of the shifts and of all photographs that they need."""
        names = sorted({side.collection for shift in self.shifts for side in shift.sides})
        keys = {name: self.labelled(name).images.key() for name in names}
        if self.corrupts:
            keys["caltech101"] = self.caltech("test").images.key()
        return key_of(shifts=[asdict(shift) for shift in self.shifts], images=keys)

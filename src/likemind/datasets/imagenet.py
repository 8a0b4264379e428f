"""ImageNet and its kin, in the layouts in which they are published."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from likemind.datasets.labelled import Labelled, by_folder
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path


@lru_cache
def imagenet_classes(part: Literal["imagenet", "imagenet_a", "imagenet_r"] = "imagenet") -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k's classes in the order of their numbers, or of those that a part has.

    The 200 of ImageNet-A are those of ``thousand_k_to_200`` in ``hendrycks/natural-adv-examples`` (commit 0777070), the
    200 of ImageNet-R those of ``imagenet_r_wnids`` in ``hendrycks/imagenet-r`` (commit 3131cac), the numbers those of
    BREEDS' ``dataset_class_info.json``.

    Example:
        >>> imagenet_classes()[1], len(imagenet_classes("imagenet_a"))
        ('n01443537', 200)
    """
    text = (files("likemind.datasets") / "tables" / "imagenet_classes.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return tuple(row["wnid"] for row in rows if part == "imagenet" or row[part] == "1")


def imagenet(folder: Path, split: Literal["train", "val"], *, most: int | None = None) -> Labelled:
    """Read ImageNet's ``train/`` or ``val/``, each with a folder ``nXXXXXXXX/`` for every class.

    Args:
        folder: Holds ``train/`` and ``val/``.
        split: Which of them.
        most: Keep at most so many photographs of a class, as ``by_folder``.

    Raises:
        LikemindError: A class's folder is missing or empty, another is there, or ``val/`` is not sorted into folders.
    """
    place = folder / split
    if split == "val" and place.is_dir() and any(place.glob("ILSVRC2012_val_*")):
        raise LikemindError(
            f"{place} holds the photographs themselves: sort them into a folder for each class, as the development "
            "kit's validation labels say"
        )
    return by_folder(place, {wnid: wnid for wnid in imagenet_classes()}, what="ImageNet", most=most)


def imagenet_a(folder: Path) -> Labelled:
    """Read ImageNet-A (Hendrycks et al. 2021, "Natural Adversarial Examples"): 200 folders ``nXXXXXXXX/``."""
    return by_folder(folder, {wnid: wnid for wnid in imagenet_classes("imagenet_a")}, what="ImageNet-A")


def imagenet_r(folder: Path) -> Labelled:
    """Read ImageNet-R (Hendrycks et al. 2021, "The Many Faces of Robustness"): 200 folders ``nXXXXXXXX/``."""
    return by_folder(folder, {wnid: wnid for wnid in imagenet_classes("imagenet_r")}, what="ImageNet-R")


def imagenet_sketch(folder: Path) -> Labelled:
    """Read ImageNet-Sketch (Wang et al. 2019): 1,000 folders ``nXXXXXXXX/``."""
    return by_folder(folder, {wnid: wnid for wnid in imagenet_classes()}, what="ImageNet-Sketch")


def imagenet_v2(folder: Path) -> Labelled:
    """Read ImageNet-V2 (Recht et al. 2019): 1,000 folders named after the classes' numbers, 0 to 999.

    Readers that sort the names as texts (0, 1, 10, 100, …) give nearly every photograph another class; here the name is
    the number.
    """
    classes = {str(number): wnid for number, wnid in enumerate(imagenet_classes())}
    return by_folder(folder, classes, what="ImageNet-V2")


def tiny_imagenet(folder: Path, split: Literal["train", "val"]) -> Labelled:
    """Read Tiny-ImageNet-200: ``wnids.txt``, ``train/nXXXXXXXX/images/``, ``val/images/`` and ``val_annotations.txt``.

    Raises:
        LikemindError: A file is missing, or a photograph of ``val/`` has no class.
    """
    wnids = _lines(folder / "wnids.txt")
    if split == "train":
        return by_folder(folder / "train", {wnid: wnid for wnid in wnids}, what="Tiny-ImageNet")
    rows = [line.split("\t") for line in _lines(folder / "val" / "val_annotations.txt")]
    class_of = {row[0]: row[1] for row in rows if len(row) > 1}
    flat = by_folder(folder / "val", {"images": "images"}, what="Tiny-ImageNet's val")
    found = [class_of.get(name.removeprefix("images/"), "") for name in flat.images.ids]
    unknown = sum(name not in wnids for name in found)
    if unknown:
        raise LikemindError(
            f"{folder / 'val'}: val_annotations.txt gives {unknown} of {len(found)} photographs no class of wnids.txt: "
            "fetch the archive again"
        )
    return Labelled(flat.images, found)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise LikemindError(f"{path} does not exist: unpack Tiny-ImageNet there")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]

"""The part of the suite that learns a linear read-out on photographs of one kind and tests it on another.

BREEDS (Santurkar et al. 2021), ImageNet-A and -R (Hendrycks et al. 2021), -Sketch (Wang et al. 2019), -V2 (Recht et al.
2019), and common corruptions (Hendrycks and Dietterich 2019). The model stays as it is; only the read-out learns, and
never sees the other kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likemind.datasets.labelled import numbers
from likemind.evaluation.context import Scored
from likemind.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from likemind.evaluation.intervals import Replicated, Resampled, mean_estimate
from likemind.evaluation.readout import ReadOut, fit_readout
from likemind.features.embed import embed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from likemind.datasets.shifts import Shift, ShiftSets, Side
    from likemind.evaluation.context import Context, Subject
    from likemind.evaluation.models import Model
    from likemind.images.collection import ImageCollection

TESTED = 3
"""Most photographs of each class of Caltech-101 that are corrupted."""


class Transfer:
    """Accuracy of a read-out on the source and the target of every shift that the folder of data sets has."""

    def __init__(self, context: Context) -> None:
        self.seed, self.sets = context.seed, context.sets
        self._rows = Rows(context.features)

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer; none where no folder of data sets was given."""
        if self.sets is not None:
            for shift in self.sets.shifts:
                yield from self._shift(subject, self.sets, shift)
            if self.sets.corrupts:
                yield from self._corruptions(subject, self.sets)

    def _side(self, subject: Subject, sets: ShiftSets, side: Side) -> tuple[np.ndarray, list[str]]:
        """Return the rows (n, d) and classes of a side's photographs."""
        found = sets.labelled(side.collection)
        wanted = set(side.classes)
        chosen = [row for row, name in enumerate(found.classes) if name in wanted]
        rows = self._rows.of(subject, side.collection, found.images)
        return rows[chosen], [found.classes[row] for row in chosen]

    def _shift(self, subject: Subject, sets: ShiftSets, shift: Shift) -> Iterator[Scored]:
        rows, classes = self._side(subject, sets, shift.train)
        label, names = numbers(shift.labels(classes))
        readout = fit_readout(rows, label, seed=self.seed)
        found: dict[str, Resampled | OfClasses] = {}
        for place, (domain, side) in enumerate((("source", shift.source), ("target", shift.target))):
            if side is not None:
                rows, classes = self._side(subject, sets, side)
                right = _right(readout, rows, shift.labels(classes), names)
                found[domain] = _accuracy(right, classes if shift.by_class else None, self.seed + place)
                metric = f"{shift.name}/{domain}/accuracy"
                yield Scored(metric, found[domain], 1 / len(names), 1.0, source="labels")
        if "source" in found and found["source"].value > 0:
            drop = _relative_drop(found["source"], found["target"])
            yield Scored(f"{shift.name}/target/drop", drop, None, 0.0, higher_is_better=False, source="labels")

    def _corruptions(self, subject: Subject, sets: ShiftSets) -> Iterator[Scored]:
        train, test = sets.caltech("train"), sets.caltech("test").at_most(TESTED)
        label, names = numbers(train.classes)
        clean = corrupted(train.images, "clean", 0)
        readout = fit_readout(self._rows.of(subject, "caltech-train", clean), label, seed=self.seed)

        def right(name: str, severity: int) -> np.ndarray:
            rows = self._rows.of(subject, f"caltech-{name}-{severity}", corrupted(test.images, name, severity))
            return _right(readout, rows, test.classes, names)

        source = mean_estimate(right("clean", 0), self.seed)
        yield Scored("caltech101-c/source/accuracy", source, 1 / len(names), 1.0, source="labels")
        cells = np.stack([[right(name, severity) for severity in SEVERITIES] for name in CORRUPTIONS])
        means = {"all": cells.mean(axis=(0, 1))}
        means |= {name: cells[place].mean(axis=0) for place, name in enumerate(CORRUPTIONS)}
        means |= {f"s{severity}": cells[:, place].mean(axis=0) for place, severity in enumerate(SEVERITIES)}
        for level, values in means.items():
            target = mean_estimate(values, self.seed)
            yield Scored(f"caltech101-c/target/accuracy.{level}", target, 1 / len(names), 1.0, source="labels")
            if level == "all" and source.value > 0:
                drop = _relative_drop(source, target)
                metric = "caltech101-c/target/drop.all"
                yield Scored(metric, drop, None, 0.0, higher_is_better=False, source="labels")


@dataclass(frozen=True, eq=False)
class OfClasses(Replicated):
    """An estimate whose units are classes, often few: Student's interval, as percentiles of few are too narrow."""

    @property
    def error(self) -> tuple[float, int]:
        """The replicates' deviation, made up for that of few units being too small, and classes less one."""
        freedom = max(self.n - 1, 1)
        return float(np.nanstd(self.replicates) * np.sqrt(self.n / freedom)), freedom


class Rows:
    """Unit rows of photographs at a model's layers, each collection embedded once a model.

    Attributes:
        folder: Where features go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model: Model | None = None
        self._kept: dict[str, dict[str, np.ndarray]] = {}

    def of(self, subject: Subject, name: str, images: ImageCollection) -> np.ndarray:
        """Return the rows (n, d) of images at a subject's layer; ``name`` tells collections apart."""
        model = subject.model
        if model is not self._model:
            self._model, self._kept = model, {}
        if name not in self._kept:
            self.folder.mkdir(parents=True, exist_ok=True)
            out = self.folder / f"{model.backbone.fingerprint[:16]}-of-{name}"
            self._kept[name] = model.embeddings(np.asarray(embed(images, model.backbone, out=out).features))
        return self._kept[name][subject.layer]


def _right(readout: ReadOut, rows: np.ndarray, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Say of each photograph whether it is recognised, (n,)."""
    found = np.array(names, dtype=object)[readout.predict(rows)]
    right: np.ndarray = (found == np.array(labels, dtype=object)).astype(np.float64)
    return right


def _accuracy(right: np.ndarray, classes: Sequence[str] | None, seed: int) -> Resampled | OfClasses:
    """Return the share that is right; what is resampled is photographs, or classes where they are given."""
    if classes is None:
        return mean_estimate(right, seed)
    label, names = numbers(list(classes))
    each = np.bincount(label, minlength=len(names)).astype(np.float64)
    found = mean_estimate(np.bincount(label, right, minlength=len(names)) / each, seed, each)
    return OfClasses(found.value, found.n, found.replicates)


def _relative_drop(source: Resampled | OfClasses, target: Resampled | OfClasses) -> Resampled | OfClasses:
    """Return 1 − target / source: the share of what was right in training's kind that is lost."""
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = np.where(source.replicates > 0, 1 - target.replicates / source.replicates, np.nan)
    return type(target)(1 - target.value / source.value, target.n, replicates)

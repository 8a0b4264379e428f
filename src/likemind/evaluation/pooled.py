"""Features of the evaluated images, once for each model and look, and which images there are to score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likemind.errors import LikemindError, few
from likemind.features.embed import embed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.evaluation.models import Model
    from likemind.features.store import FeatureStore


class Pooled:
    """The backbones' output for the images of an evaluation set.

    Args:
        data: Its images must be there.
        folder: Where features are kept; what is there already is used again.
        skip_bad: Leave out images that cannot be read.
    """

    def __init__(self, data: EvaluationSet, folder: Path, *, skip_bad: bool = False) -> None:
        self._data, self._folder, self._skip_bad = data, folder, skip_bad

    def store(self, model: Model, shift: str | None = None) -> FeatureStore:
        """Return the features of all images; under a shift, of the held-out ones."""
        chosen = self._data.items if shift is None else self._data.select("heldout")
        images = self._data.images(shift).select([item.id for item in chosen])
        self._folder.mkdir(parents=True, exist_ok=True)
        out = self._folder / f"{model.backbone.fingerprint[:16]}-{images.key()[:16]}"
        return embed(images, model.backbone, out=out, skip_bad=self._skip_bad)

    def rows(self, model: Model, ids: Sequence[str], shift: str | None = None) -> np.ndarray:
        """Return the features of these images, (n, d)."""
        store = self.store(model, shift)
        place = {name: row for row, name in enumerate(store.ids)}
        return np.asarray(store.features)[[place[name] for name in ids]]


def missing_images(data: EvaluationSet, shifts: Sequence[str], *, allow: bool) -> list[str]:
    """Return the ids of items that have no image, or, held out, none under one of the shifts.

    Raises:
        LikemindError: There are some, and ``allow`` is false.
    """
    there = set(data.images().ids)
    gone = {item.id: "" for item in data.items if item.id not in there}
    for shift in shifts:
        there = set(data.images(shift).ids)
        gone |= {item.id: "" for item in data.select("heldout") if item.id not in there}
    if gone and not allow:
        raise LikemindError(
            f"{data.path} lacks the images of {len(gone)} items ({few(list(gone))}): add them, or pass --allow-missing "
            "to leave these items and the judgements about them out"
        )
    return list(gone)


def unreadable_images(data: EvaluationSet, shifts: Sequence[str], pooled: Pooled, model: Model) -> list[str]:
    """Return the ids of items whose image, or whose image under a shift, cannot be read."""
    bad = {item.id for item in data.items} - set(pooled.store(model).ids)
    for shift in shifts:
        bad |= {item.id for item in data.select("heldout")} - set(pooled.store(model, shift).ids)
    return [item.id for item in data.items if item.id in bad]

"""Memory-mapped features with ids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likemind.artifacts import PathLike, read_run
from likemind.errors import LikemindError, few
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """One row of features an image, as ``likemind embed`` wrote them.

    Attributes:
        path: The artifact.
        ids: The images' ids, one a row.
        features: (n, d) float32, memory-mapped.
        run: The artifact's ``run.json``.

    Example:
        >>> store = FeatureStore.load("runs/features")  # doctest: +SKIP
        >>> store.rows(["cats/tom.jpg"]).shape  # doctest: +SKIP
        (1, 1280)
    """

    path: Path
    ids: list[str]
    features: np.ndarray
    run: dict[str, Any]

    @classmethod
    def load(cls, path: PathLike | FeatureStore, *, verify: bool = False) -> FeatureStore:
        """Open a store, checking sizes (and bytes, with ``verify``)."""
        if isinstance(path, FeatureStore):
            return path
        folder = Path(path)
        run = read_run(folder, verb="embed", verify=verify)
        try:
            features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise LikemindError(
                f"{folder / 'features.npy'} is damaged ({error}): make it again with --overwrite"
            ) from None
        ids = read_table(folder / "items.parquet").column("id").to_pylist()
        if len(ids) != len(features):
            raise LikemindError(f"{folder} has {len(ids)} ids for {len(features)} rows: make it again with --overwrite")
        return cls(folder, ids, features, run)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> str:
        """The artifact's key."""
        return str(self.run["key"])

    @property
    def fingerprint(self) -> str:
        """The backbone's fingerprint."""
        return str(self.run["config"]["backbone"])

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Return the features of these images, float32 (n, d).

        Raises:
            LikemindError: An image has no row; up to five are named.
        """
        missing = [name for name in ids if name not in self._position]
        if missing:
            named = few(missing)
            raise LikemindError(
                f"{self.path} has no features of {len(missing)} images ({named}): embed them, or leave them out"
            )
        return np.asarray(self.features[[self._position[name] for name in ids]], dtype=np.float32)

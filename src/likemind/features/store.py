"""Memory-mapped features with ids."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likemind.artifacts import PathLike, read_run
from likemind.errors import LikemindError, few
from likemind.fetched import fetched
from likemind.hashes import key_of
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """One row of features an image, as ``likemind embed`` wrote them.

    Attributes:
        path: The artifact.
        ids: The images' ids, one a row.
        features: (n, d) float32 or float16, as they were stored, memory-mapped.
        run: The artifact's ``run.json``.
        parts: The stores that were joined, if any.

    Example:
        >>> store = FeatureStore.load("runs/features")  # doctest: +SKIP
        >>> store.rows(["cats/tom.jpg"]).shape  # doctest: +SKIP
        (1, 1280)
    """

    path: Path
    ids: list[str]
    features: np.ndarray
    run: dict[str, Any]
    parts: tuple[FeatureStore, ...] = ()

    @classmethod
    def load(
        cls, path: PathLike | FeatureStore | Sequence[PathLike | FeatureStore], *, verify: bool = False
    ) -> FeatureStore:
        """Open a store at a path or URL, checking sizes (and bytes, with ``verify``); of several, join the rows."""
        if isinstance(path, FeatureStore):
            return path
        if not isinstance(path, str | os.PathLike):
            return joined([cls.load(one, verify=verify) for one in path])
        folder = fetched(path)
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the store again."""
        return (_reopened, (self.path, self.key)) if not self.parts else (joined, (list(self.parts),))

    @property
    def key(self) -> str:
        """The artifact's key."""
        return str(self.run["key"])

    @property
    def fingerprint(self) -> str:
        """The backbone's fingerprint."""
        return str(self.run["config"]["backbone"])

    @property
    def blocks(self) -> list[int]:
        """Widths of the features that were joined; one, if none were."""
        return list(getattr(self.features, "blocks", [self.features.shape[1]]))

    @cached_property
    def position(self) -> dict[str, int]:
        """Row of each id."""
        return {name: position for position, name in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Return the features of these images, float32 (n, d).

        Raises:
            LikemindError: An image has no row; up to five are named.
        """
        return np.asarray(self.features[self.positions(ids)], dtype=np.float32)

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Return the rows of these images.

        Raises:
            LikemindError: An image has no row; up to five are named.
        """
        missing = [name for name in ids if name not in self.position]
        if missing:
            named = few(missing)
            raise LikemindError(
                f"{self.path} has no features of {len(missing)} images ({named}): embed them, or leave them out"
            )
        return [self.position[name] for name in ids]


def joined(stores: Sequence[FeatureStore]) -> FeatureStore:
    """Return one store whose rows are these stores' rows, side by side: several layers, or several backbones.

    Raises:
        LikemindError: There is no store, or one lacks an image that the first has.
    """
    if not stores:
        raise LikemindError("there are no features to join: give one store at least")
    first = stores[0]
    if len(stores) == 1:
        return first
    places = [None if store.ids == first.ids else np.array(store.positions(first.ids)) for store in stores]
    parts = [store.fingerprint for store in stores]
    name = " + ".join(str(store.run["figures"]["backbone_name"]) for store in stores)
    run = {
        "key": key_of(joined=[store.key for store in stores]),
        "config": {"backbone": key_of(joined=parts), "parts": parts},
        "figures": {"backbone_name": name},
    }
    path = Path(" + ".join(str(store.path) for store in stores))
    rows: Any = JoinedRows([store.features for store in stores], places)
    return FeatureStore(path, first.ids, rows, run, tuple(stores))


def _reopened(path: Path, key: str) -> FeatureStore:
    store = FeatureStore.load(path)
    if store.key != key:
        raise LikemindError(f"{path} was made again while it was read: run the same command again")
    return store


class JoinedRows:
    """Rows of several arrays side by side, put together when they are asked for.

    Shapes:
        parts: (n, d_k) each. places: each part's row for a row of ours; the same if None.
    """

    def __init__(self, parts: list[np.ndarray], places: list[np.ndarray | None]) -> None:
        self.blocks = [width for part in parts for width in getattr(part, "blocks", [part.shape[1]])]
        self.shape = (len(parts[0] if places[0] is None else places[0]), sum(self.blocks))
        self.dtype = np.result_type(*parts)
        self.parts = [inner for part in parts for inner in getattr(part, "parts", [part])]
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = [
            part[rows] if place is None else part[place[rows]]
            for part, place in zip(self._parts, self._places, strict=True)
        ]
        return np.concatenate(chosen, axis=1)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

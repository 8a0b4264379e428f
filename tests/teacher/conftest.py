"""A feature store that no network had to make, and judgements that a known map explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from likemind.artifacts import Artifact
from likemind.choice import PAIRS
from likemind.features.store import FeatureStore
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_store(path: Path, X: np.ndarray, fingerprint: str = "f" * 64) -> FeatureStore:
    ids = [f"item-{k:03d}" for k in range(len(X))]
    config, inputs = {"backbone": fingerprint}, {"rows": repr(X.tobytes())}
    with Artifact(path, verb="embed", config=config, inputs=inputs) as work:
        if not work.done:
            np.save(work.path / "features.npy", X.astype(np.float32))
            write_table(work.path / "items.parquet", pa.table({"id": ids}))
            work.figures = {"backbone_name": "tiny"}
    return FeatureStore.load(path)


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[..., FeatureStore]:
    def store(X: np.ndarray, name: str = "features", fingerprint: str = "f" * 64) -> FeatureStore:
        return make_store(tmp_path / name, X, fingerprint)

    return store


class World:
    """Objects whose first two dimensions are all that people see; answers are drawn from the choice model."""

    def __init__(self, items: int = 48, width: int = 8, n: int = 1500, seed: int = 0, sharpness: float = 3.0) -> None:
        rng = np.random.default_rng(seed)
        self.X = rng.normal(size=(items, width))
        seen = np.zeros(width)
        seen[:2] = sharpness**0.5
        self.triplets = np.stack([rng.choice(items, 3, replace=False) for _ in range(n)])
        Z = self.X * seen
        logits = np.stack([(Z[self.triplets[:, a]] * Z[self.triplets[:, b]]).sum(1) for a, b in PAIRS], axis=1)
        p = np.exp(logits - logits.max(1, keepdims=True))
        self.p = p / p.sum(1, keepdims=True)
        self.pair = (rng.random((n, 1)) > self.p.cumsum(1)).sum(1).clip(max=2)
        self.answers = np.eye(3)[self.pair]

    def judgements(self, pair: np.ndarray | None = None) -> Triplets:
        ids = [f"item-{k:03d}" for k in range(len(self.X))]
        return Triplets(ids, self.triplets, choice=2 - (self.pair if pair is None else pair), source="simulated")


@pytest.fixture(scope="session")
def world() -> World:
    return World()

"""Features in clear clusters, and a teacher for them, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from likemind.artifacts import Artifact
from likemind.features.store import FeatureStore
from likemind.teacher.teacher import Teacher
from likemind.triplets import write_table

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Pieces:
    store: FeatureStore
    teacher: Teacher


def make_store(path: Path, X: np.ndarray, fingerprint: str) -> FeatureStore:
    with Artifact(path, verb="embed", config={"backbone": fingerprint}, inputs={}) as work:
        np.save(work.path / "features.npy", X.astype(np.float32))
        write_table(work.path / "items.parquet", pa.table({"id": [f"{k}.png" for k in range(len(X))]}))
        work.figures = {"backbone_name": "tiny"}
    return FeatureStore.load(path)


def make_teacher(path: Path, width: int, fingerprint: str) -> Teacher:
    rng = np.random.default_rng(5)
    weights, bias = np.eye(width) + 0.3 * rng.normal(size=(width, width)), rng.normal(size=width)
    teacher = Teacher.of(weights, bias, rng.normal(size=width), 1.3, penalty=0.1, backbone=fingerprint)
    teacher.scale_ = np.full(width, 1.7)
    with Artifact(path, verb="teach", config={}, inputs={}) as work:
        teacher.write(work.path)
    return Teacher.load(path)


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(6, 5)) * 3)[rng.integers(6, size=80)] + rng.normal(size=(80, 5))
    return Pieces(make_store(tmp_path / "features", X, "a" * 64), make_teacher(tmp_path / "teacher", 5, "a" * 64))

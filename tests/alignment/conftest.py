"""Images, a tiny backbone, its features, and a teacher who looks at what the backbone hardly sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from evaluation.conftest import make_data, tiny_backbone
from likemind.alignment.known import Known
from likemind.alignment.recipe import resolve_recipe
from likemind.artifacts import Artifact
from likemind.features.embed import embed
from likemind.pseudolabels.label import label
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.alignment.recipe import Recipe
    from likemind.backbones.base import Backbone
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.features.store import FeatureStore
    from likemind.images.collection import ImageCollection


def made_teacher(folder: Path, store: FeatureStore) -> Teacher:
    """A teacher whose similarity is that of the features' second to fourth principal directions alone."""
    X = np.asarray(store.features, dtype=float)
    _, size, right = np.linalg.svd(X - X.mean(0), full_matrices=False)
    keep = right[1:4]
    scales = np.sqrt(len(X)) / size[1:4] * 1.5
    weights = keep.T @ np.diag(scales) @ keep
    teacher = Teacher.of(weights, np.zeros(X.shape[1]), X.mean(0), 1.0, penalty=0.1, backbone=store.fingerprint)
    with Artifact(folder, verb="teach", config={"made": "by hand"}, inputs={}) as work:
        teacher.write(work.path)
    return Teacher.load(folder)


@dataclass
class World:
    place: Path
    data: EvaluationSet
    images: ImageCollection
    backbone: Backbone
    features: FeatureStore
    teacher: Teacher
    labels: Path
    control_labels: Path

    def known(self, **changes: Any) -> Known:
        parts = {
            "folder": self.place / "known",
            "images": self.images,
            "backbone": self.backbone,
            "teacher": self.teacher,
            "triplets": None,
            "features": self.features,
            "control": False,
            "seed": 0,
        }
        return Known(**(parts | changes))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("alignment")
    data = make_data(place / "data")
    images = data.images().select([item.id for item in data.select("train")])
    backbone = tiny_backbone()
    features = embed(images, backbone, out=place / "features")
    teacher = made_teacher(place / "teacher", features)
    for name, control in (("labels", False), ("control-labels", True)):
        label(features, teacher, out=place / name, n=200, clusters=4, control=control)
    return World(place, data, images, backbone, features, teacher, place / "labels", place / "control-labels")


def quick(**changes: Any) -> Recipe:
    """The smoke recipe without the probe for precision."""
    return resolve_recipe("smoke", {"precision": "float32", **changes})

"""What training may look up: the student's own old features, the teacher's, the clusters, the labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from likemind.alignment.batches import Batch, by_cluster, fresh_batch, independent_batch, packed_batch
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.features.store import FeatureStore
from likemind.pseudolabels.cluster import cluster
from likemind.pseudolabels.label import load_clusters
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from likemind.alignment.recipe import Recipe
    from likemind.artifacts import PathLike
    from likemind.backbones.base import Backbone
    from likemind.images.collection import ImageCollection
    from likemind.teacher.teacher import Teacher


@dataclass
class Known:
    """What is known of each training image before training starts, computed when first asked for.

    Attributes:
        folder: Where the student's own features may be kept while it trains.
        images: The training images.
        backbone: The student's, untrained.
        teacher: Or None, where labels come from a file.
        triplets: An output of ``likemind label``, or None.
        features: Of the teacher's backbone, or None.
        control: Whether the teacher is left untransformed.
        seed: Of the clusters, where none are given.
    """

    folder: Path
    images: ImageCollection
    backbone: Backbone
    teacher: Teacher | None
    triplets: PathLike | None
    features: PathLike | FeatureStore | None
    control: bool
    seed: int

    @cached_property
    def base(self) -> FeatureStore:
        """The student's own features before training."""
        if self.features is not None and FeatureStore.load(self.features).fingerprint == self.backbone.fingerprint:
            return FeatureStore.load(self.features)
        return embed(self.images, self.backbone, out=self.folder / "base-features")

    @cached_property
    def base_rows(self) -> np.ndarray:
        """Those features, a row an image."""
        return self.base.rows(self.images.ids)

    @cached_property
    def source(self) -> Teacher:
        """The teacher whose similarities are learned: the untransformed one for the control."""
        assert self.teacher is not None
        return self.teacher.untransformed() if self.control else self.teacher

    @cached_property
    def own_teacher(self) -> bool:
        """Whether the teacher stands on the student's own backbone."""
        return self.teacher is not None and self.teacher.backbone_ in ("", self.backbone.fingerprint)

    @cached_property
    def taught(self) -> np.ndarray:
        """The teacher's features of each image."""
        if self.own_teacher:
            return self.source.transform(self.base_rows)
        assert self.features is not None
        return self.source.transform(FeatureStore.load(self.features).rows(self.images.ids))

    def teach_again(self, features: FeatureStore) -> None:
        """Take the teacher's similarities of other features of its own width from now on; the clusters stay."""
        _ = self.clusters
        self.taught = self.source.transform(features.rows(self.images.ids))

    def check(self, recipe: Recipe) -> None:
        """Refuse labels of other images, and a teacher of another backbone without that backbone's features."""
        if self.from_file(recipe):
            _ = self.labels
        if self.teacher is None or self.own_teacher:
            self._check_width(self.backbone.dim, self.backbone.name)
            return
        if self.features is None:
            raise LikemindError(
                "the teacher was fitted on another backbone than the student's: pass --features, its backbone's "
                "features of these images"
            )
        store = FeatureStore.load(self.features)
        self.teacher.check_backbone(store.fingerprint, f"the feature store {store.path}")
        store.rows(self.images.ids[:1])
        self._check_width(store.features.shape[1], str(store.path))

    def _check_width(self, width: int, what: str) -> None:
        if self.teacher is not None and len(self.teacher.mean_) != width:
            raise LikemindError(
                f"the teacher maps features of width {len(self.teacher.mean_)}, and {what} gives {width}: pass the "
                "teacher of this backbone, or --features of the teacher's"
            )

    @cached_property
    def clusters(self) -> np.ndarray:
        """The cluster of each image, from the labels' file where there is one."""
        if self.triplets is not None:
            return load_clusters(self.triplets, self.images.ids)
        return groups(self.taught, self.seed)

    @cached_property
    def labels(self) -> tuple[Triplets, np.ndarray]:
        """The labelled triplets, and the positions of their images."""
        assert self.triplets is not None
        labels = Triplets.load(self.triplets)
        return labels, labels.positions_in(self.images.ids, f"the images ({self.images.path})")

    @cached_property
    def _grouped(self) -> tuple[np.ndarray, np.ndarray]:
        return by_cluster(self.clusters)

    def batch(self, recipe: Recipe, seed: int, step: int) -> Batch:
        """Return a step's images and triplets."""
        if recipe.batching == "packed":
            return packed_batch(self.clusters, recipe, seed, step)
        if self.from_file(recipe):
            return independent_batch(*self.labels, recipe, seed, step)
        return fresh_batch(self._grouped, recipe, seed, step)

    def from_file(self, recipe: Recipe) -> bool:
        """Whether independent batches take triplets and similarities from the file of labels."""
        return recipe.batching == "independent" and recipe.target == "paper" and self.triplets is not None


def groups(taught: np.ndarray, seed: int) -> np.ndarray:
    """Return the cluster of each row: 500, or one for every twelve images where there are fewer than 6,000.

    Among few images an outlier can be a cluster of its own and leave all others in one. Then there are more clusters,
    until two of them hold two images, so that packed batches can be drawn.

    Shapes:
        taught: (n, d), the teacher's features. Returns (n,).
    """
    count = max(2, min(500, len(taught) // 12))
    found = cluster(taught, count, seed=seed)
    while (found.sizes > 1).sum() < 2 and count < len(taught) // 2:
        count += 1
        found = cluster(taught, count, seed=seed)
    return found.labels

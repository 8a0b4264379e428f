"""k-means over teacher features: which images lie together, before anyone is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from likemind.errors import LikemindError


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of images.

    Attributes:
        labels: (n,) int32, the cluster of each row.
        inertia: Sum of squared distances to the centres.
    """

    labels: np.ndarray
    inertia: float

    @property
    def sizes(self) -> np.ndarray:
        """Number of images in each cluster, (k,)."""
        return np.bincount(self.labels)


def cluster(features: np.ndarray, k: int, *, seed: int) -> Clusters:
    """Partition rows into ``k`` clusters by scikit-learn's k-means (k-means++ start, Lloyd's iterations).

    Shapes:
        features: (n, d).

    Raises:
        LikemindError: Fewer rows than clusters, or rows that are not finite.

    Example:
        >>> cluster(np.array([[0.0], [0.1], [9.0]]), 2, seed=0).sizes.tolist() in ([2, 1], [1, 2])
        True
    """
    from sklearn.cluster import KMeans

    if not np.isfinite(features).all():
        raise LikemindError("the features to be clustered are not finite: embed the images again")
    if not 2 <= k <= len(features):
        raise LikemindError(
            f"{len(features)} images cannot be put into {k} clusters: give --clusters between 2 and their number"
        )
    found = KMeans(n_clusters=k, n_init=1, random_state=seed).fit(np.ascontiguousarray(features, dtype=np.float32))
    return Clusters(labels=found.labels_.astype(np.int32), inertia=float(found.inertia_))

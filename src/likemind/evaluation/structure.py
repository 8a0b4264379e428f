"""Do things lie together by meaning?"""

from __future__ import annotations

import numpy as np

from likemind.evaluation.intervals import Resampled

_SAMPLES = 200


def grouping(embedding: np.ndarray, groups: list[str], seed: int) -> Resampled:
    """Return the adjusted mutual information between k-means clusters and superordinate groups.

    As many clusters as groups (k-means++, best of ten starts). 0 is chance, 1 a perfect match. Items are resampled with
    their cluster held fixed.

    Shapes:
        embedding: (n, d) unit rows. groups: n names.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    names = np.array(groups)
    found = KMeans(n_clusters=len(set(groups)), n_init=10, random_state=seed).fit_predict(embedding)
    rng = np.random.default_rng([seed, len(names)])
    rows = [rng.integers(len(names), size=len(names)) for _ in range(_SAMPLES)]
    replicates = np.array([adjusted_mutual_info_score(names[r], found[r]) for r in rows])
    return Resampled(float(adjusted_mutual_info_score(names, found)), len(names), replicates)

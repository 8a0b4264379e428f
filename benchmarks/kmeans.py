"""How fast is an iteration of k-means, and is its result as good?

    python benchmarks/kmeans.py [--quick]

200,000 rows of width 1,152, 500 clusters; CPU seconds of one thread. The peer is faiss without subsampling, or
scikit-learn's Lloyd where faiss is not installed, from the same start in the same run. With --quick there are fewer
iterations.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

from importlib.util import find_spec
from typing import TYPE_CHECKING

# isort: split
import numpy as np
import torch

from likemind.memory import keep_freed_memory
from likemind.pseudolabels.cluster import _Nearest, _Partition, cluster

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, WIDTH, CLUSTERS = 200_000, 1152, 500


def features(rows: int) -> np.ndarray:
    """Return rows around 700 centres that overlap."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((700, WIDTH), dtype=np.float32) / 2
    found = np.empty((rows, WIDTH), dtype=np.float32)
    for start in range(0, rows, 4096):
        block = found[start : start + 4096]
        block[:] = centres[rng.integers(700, size=len(block))] + rng.standard_normal(block.shape, dtype=np.float32)
    return found


def ours(X: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """Return the centres after so many iterations."""
    partition = _Partition(X, np.zeros(WIDTH, dtype=np.float32), CLUSTERS)
    centres = start
    for _ in range(iterations):
        partition._assign(centres)  # noqa: SLF001
        partition._refill(centres)  # noqa: SLF001
        centres = partition.centres
    return centres


def faiss_kmeans(X: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """The same by faiss, all rows."""
    import faiss

    faiss.omp_set_num_threads(1)
    kmeans = faiss.Kmeans(WIDTH, CLUSTERS, niter=iterations, max_points_per_centroid=len(X))
    kmeans.train(X, init_centroids=start)
    found: np.ndarray = kmeans.centroids
    return found


def sklearn_kmeans(X: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """The same by scikit-learn."""
    import warnings

    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kmeans = KMeans(CLUSTERS, init=start, n_init=1, max_iter=iterations, tol=0.0, algorithm="lloyd")
        found: np.ndarray = kmeans.fit(X).cluster_centers_
    return found


def inertia(X: np.ndarray, centres: np.ndarray) -> float:
    """Return the sum of squared distances to the nearest centres, by one measure for all."""
    half = np.square(centres).sum(axis=1) / 2
    total = 0.0
    for first in range(0, len(X), 4096):
        x = X[first : first + 4096]
        nearest = (x @ centres.T - half).argmax(axis=1)
        total += float(np.square(x - centres[nearest]).sum(dtype=np.float64))
    return total


def main() -> None:
    """Print the row of one iteration, that of the inertia, and that of the whole job."""
    short = quick(__doc__)
    torch.set_num_threads(1)
    keep_freed_memory()
    X = features(ROWS)
    start = X[np.random.default_rng(1).permutation(ROWS)[:CLUSTERS]]
    name, peer = ("faiss, all rows", faiss_kmeans) if find_spec("faiss") else ("scikit-learn, Lloyd", sklearn_kmeans)
    ours(X[:5000], start, 2)
    peer(X[:20_000], start, 1)
    few, many = (1, 3) if short else (1, 9)
    centres: dict[str, np.ndarray] = {}

    def seconds(who: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> float:
        once = cpu_seconds(lambda: who(X, start, few))
        more = cpu_seconds(lambda: centres.update({who.__name__: who(X, start, many)}))
        return (more - once) / (many - few)

    own, theirs = seconds(ours), seconds(peer)
    narrow = "bfloat16 candidates, float32 decides" if _Nearest(start).narrow else "float32"
    unit = f"CPU s an iteration, {ROWS} × {WIDTH} float32, k = {CLUSTERS}, {narrow}"
    row("kmeans/iteration", own, unit, peer=f"{name}: {theirs:.2f} CPU s", ratio=theirs / own)
    found = inertia(X, centres["ours"]), inertia(X, centres[peer.__name__])
    unit = f"inertia after {many} iterations from the same start, ours ÷ peer's"
    row("kmeans/inertia", found[0] / found[1], unit, peer=name)
    if not short:
        whole = [cluster(X, CLUSTERS, seed=0)]
        spent = cpu_seconds(lambda: whole.append(cluster(X, CLUSTERS, seed=0)))
        unit = f"CPU s for start and {whole[1].iterations} iterations over all rows, by cluster()"
        own_start = inertia(X, peer(X, start, 25))
        share = whole[1].inertia / own_start
        row("kmeans/cluster", spent, unit, inertia_to_25_iterations_of_peer_from_random_rows=round(share, 4))


if __name__ == "__main__":
    main()

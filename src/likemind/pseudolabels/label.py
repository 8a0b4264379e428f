"""`label`: cluster, sample, and write down what the teacher finds similar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa
import torch

from likemind.artifacts import Artifact, PathLike
from likemind.choice import choose, entropy, log_probabilities
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore
from likemind.progress import log
from likemind.pseudolabels.cluster import cluster
from likemind.pseudolabels.sample import SAMPLERS
from likemind.teacher.teacher import Teacher
from likemind.triplets import Triplets, read_table, write_table

if TYPE_CHECKING:
    from typing import Literal

_LEARNABLE = 0.98
"""Mean label entropy, as a share of ln 3, above which nothing could be learned from the labels."""


def label(
    features: PathLike | FeatureStore,
    teacher: PathLike | Teacher,
    *,
    out: PathLike,
    n: int,
    sampling: str = "cluster_border",
    clusters: int = 500,
    control: bool = False,
    seed: int = 0,
    engine: Literal["local"] = "local",
    overwrite: bool = False,
) -> Triplets:
    """Write pseudo-human similarities for triplets of images.

    Args:
        features: A store of the teacher's backbone's features.
        teacher: The teacher.
        out: The labels' directory: ``triplets.parquet``, ``items.parquet`` and ``clusters.parquet``.
        n: Triplets, all different.
        sampling: ``cluster_border`` or ``uniform``.
        clusters: Of k-means over the teacher's features.
        control: Label with the untransformed features (UnAligNet) instead.
        seed: Of clustering and sampling.
        engine: ``local``.
        overwrite: Replace another run at ``out``.

    Returns:
        The triplets, whose ``similarities`` are raw dot products of teacher features, source ``pseudo``.

    Raises:
        LikemindError: Features of another backbone than the teacher's, or too few images for what is asked.

    Example:
        >>> label("runs/features", "runs/teacher", out="runs/labels", n=100_000)  # doctest: +SKIP
    """
    if engine != "local":
        raise LikemindError(f"engine {engine!r} is not known: choose 'local'")
    if sampling not in SAMPLERS:
        raise LikemindError(f"sampling {sampling!r} is not known: choose one of {', '.join(SAMPLERS)}")
    store, fitted = FeatureStore.load(features), Teacher.load(teacher)
    fitted.check_backbone(store.fingerprint, f"the feature store {store.path}")
    config = {"n": n, "sampling": sampling, "clusters": clusters, "control": control, "seed": seed}
    inputs = {"features": store.key, "teacher": fitted.key}
    with Artifact(out, verb="label", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            source = fitted.untransformed() if control else fitted
            work.figures = _write(work.path, store, source, n, sampling, clusters, seed)
    return Triplets.load(out)


def _write(
    folder: Path, store: FeatureStore, teacher: Teacher, n: int, sampling: str, clusters: int, seed: int
) -> dict[str, Any]:
    aligned = np.ascontiguousarray(teacher.transform(np.asarray(store.features)), dtype=np.float32)
    groups = cluster(aligned, clusters, seed=seed)
    indices = SAMPLERS[sampling](groups.labels, n, seed=seed)
    similarities = np.empty((n, 3), dtype=np.float32)
    _dot_pairs(aligned, indices, similarities)
    Triplets(store.ids, indices, similarities=similarities, source="pseudo").save(folder)
    write_table(folder / "clusters.parquet", pa.table({"id": store.ids, "cluster": groups.labels}))
    figures = label_figures(similarities)
    if figures["mean_entropy_share"] > _LEARNABLE:
        log.warning(
            "the labels' mean entropy is %.1f %% of that of guessing: almost nothing can be learned from them; "
            "check the teacher's scale (cosine-sized similarities?)",
            100 * figures["mean_entropy_share"],
        )
    return {**figures, "cluster_sizes": groups.sizes.tolist(), "inertia": groups.inertia}


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot_pairs(rows: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
    """Write the dot products of the pairs 01, 02, 12 without gathering the rows."""
    for t in range(len(indices)):
        a, b, c = rows[indices[t, 0]], rows[indices[t, 1]], rows[indices[t, 2]]
        ab = ac = bc = np.float32(0.0)
        for k in range(rows.shape[1]):
            ab += a[k] * b[k]
            ac += a[k] * c[k]
            bc += b[k] * c[k]
        out[t, 0], out[t, 1], out[t, 2] = ab, ac, bc


def label_figures(similarities: np.ndarray) -> dict[str, Any]:
    """Return how much the labels say: mean entropy (nats, and as a share of ln 3), its histogram, the share of ties."""
    values = torch.from_numpy(similarities)
    nats = entropy(log_probabilities(values)).numpy()
    counts, _ = np.histogram(nats, bins=10, range=(0.0, float(np.log(3)) + 1e-6))
    return {
        "mean_entropy": float(nats.mean()),
        "mean_entropy_share": float(nats.mean() / np.log(3)),
        "entropy_histogram": counts.tolist(),
        "ties": float((choose(values) < 0).float().mean()),
    }


def load_clusters(path: PathLike, ids: list[str]) -> np.ndarray:
    """Return the cluster of each of these images, as ``label`` wrote them, (n,) int32."""
    table = read_table(Path(path) / "clusters.parquet")
    known = dict(zip(table.column("id").to_pylist(), table.column("cluster").to_pylist(), strict=True))
    missing = [name for name in ids if name not in known]
    if missing:
        raise LikemindError(
            f"{path} knows no cluster of {len(missing)} images ({missing[0]!r}, …): label the same images"
        )
    return np.array([known[name] for name in ids], dtype=np.int32)

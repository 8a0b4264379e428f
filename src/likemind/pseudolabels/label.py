"""`label`: cluster, sample, and write down what the teacher finds similar."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from likemind.artifacts import PathLike, read_run
from likemind.choice import choose, entropy, log_probabilities
from likemind.distributed import check_engine, engine_of
from likemind.errors import LikemindError, few
from likemind.features.store import FeatureStore
from likemind.fetched import fetched
from likemind.hashes import key_of
from likemind.progress import log
from likemind.pseudolabels.cluster import cluster
from likemind.pseudolabels.dots import aligned_features, labelled
from likemind.pseudolabels.sample import OF_CLASSES, SAMPLERS
from likemind.published import artifact
from likemind.readers.alignet import write_alignet
from likemind.readers.categories import read_categories
from likemind.teacher.teacher import Teacher
from likemind.triplets import Triplets, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from likemind.distributed import Over

_LEARNABLE = 0.98
"""Mean label entropy, as a share of ln 3, above which nothing could be learned from the labels."""

_ROWS = 1 << 18
"""Triplets whose figures are computed at once."""


def label(
    features: PathLike | FeatureStore | Sequence[PathLike | FeatureStore],
    teacher: PathLike | Teacher,
    *,
    out: PathLike,
    n: int,
    sampling: str = "cluster_border",
    clusters: int = 500,
    classes: PathLike | Mapping[str, str] | None = None,
    control: bool = False,
    npz: bool = False,
    seed: int = 0,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    verify: bool = False,
    overwrite: bool = False,
) -> Triplets:
    """Write pseudo-human similarities for triplets of images.

    Nothing of the store's size is held in memory. The teacher's features lie in the labels' directory while it is made,
    as float32 up to 1 GiB and as float16 beyond.

    Args:
        features: A store of the teacher's backbone's features, or its URL; or several, joined as the teacher's were.
        teacher: The teacher, or its URL.
        out: The labels' directory, or its URL: ``triplets.parquet``, ``items.parquet`` and ``clusters.parquet``.
        n: Triplets, all different.
        sampling: ``cluster_border`` (two images of one cluster, one of another), ``uniform`` (any three), or of
            classes ``between_class`` (three), ``within_class`` (one) and ``class_border`` (two of one class, one of
            another).
        clusters: Of k-means over the teacher's features.
        classes: Id → class, or a table with the columns ``id`` and ``category``, for the samplings of classes. Without
            it they take the clusters for classes, so that ``class_border`` is ``cluster_border``.
        control: Label with the untransformed features (UnAligNet) instead.
        npz: Write AligNet's ``alignet.npz`` too (see ``to_alignet``).
        seed: Of clustering and sampling.
        engine: ``local``, or ``ray``: Ray Data's workers transform the features, find the nearest clusters and take the
            dot products, and the labels come out in the same bytes. They read features and write in the labels'
            directory while it is made, and so must find both where this process does.
        address: Of a Ray cluster, such as ``auto``; a local one is started if None.
        verify: Read the bytes of features, teacher and labels again and check them against their hashes.
        overwrite: Replace another run at ``out``.

    Returns:
        The triplets, whose ``similarities`` are raw dot products of teacher features, source ``pseudo``. As a soft
        target: ``likemind.choice.log_probabilities``.

    Raises:
        LikemindError: Features of another backbone than the teacher's, too few images for what is asked, an image
            without a class, or a damaged file.

    Example:
        >>> label("runs/features", "runs/teacher", out="runs/labels", n=100_000)  # doctest: +SKIP
    """
    check_engine(engine, address)
    if sampling not in SAMPLERS:
        raise LikemindError(f"sampling {sampling!r} is not known: choose one of {', '.join(SAMPLERS)}")
    if verify and isinstance(features, FeatureStore):
        features = features.path
    store, fitted = FeatureStore.load(features, verify=verify), Teacher.load(teacher, verify=verify)
    fitted.check_backbone(store.fingerprint, f"the feature store {store.path}")
    config = {"n": n, "sampling": sampling, "clusters": clusters, "control": control, "npz": npz, "seed": seed}
    inputs = {"features": store.key, "teacher": fitted.key}
    groups = None
    if classes is not None:
        groups, inputs["classes"] = _classes(classes, store, sampling)
    with artifact(out, verb="label", config=config, inputs=inputs, recipe_version=2, overwrite=overwrite) as work:
        if not work.done:
            source = fitted.untransformed() if control else fitted
            with engine_of(engine, address) as over:
                work.figures = _write(work.path, store, source, groups, config, over)
    made = fetched(out)
    read_run(made, verb="label", verify=verify)
    return Triplets.load(made)


def _classes(classes: PathLike | Mapping[str, str], store: FeatureStore, sampling: str) -> tuple[np.ndarray, str]:
    """Return the class of each image, (images,) int32, and a hash of them."""
    if sampling not in OF_CLASSES:
        raise LikemindError(f"{sampling} draws from no classes: leave out --classes, or choose {', '.join(OF_CLASSES)}")
    known = read_categories(classes, "--classes")
    missing = [name for name in store.ids if name not in known]
    if missing:
        raise LikemindError(f"--classes says no class of {len(missing)} images ({few(missing)}): add them")
    names, numbers = np.unique([known[name] for name in store.ids], return_inverse=True)
    groups = numbers.reshape(-1).astype(np.int32)
    return groups, key_of(names=names.tolist(), groups=hashlib.sha256(groups.tobytes()).hexdigest())


def _write(
    folder: Path,
    store: FeatureStore,
    teacher: Teacher,
    classes: np.ndarray | None,
    config: dict[str, Any],
    over: Over,
) -> dict[str, Any]:
    _clear(folder)
    scratch, seed = folder / f"aligned-{secrets.token_hex(4)}.tmp", config["seed"]
    try:
        aligned = aligned_features(store, teacher, scratch, over)
        found = cluster(aligned, config["clusters"], seed=seed, over=over)
        indices = SAMPLERS[config["sampling"]](found.labels if classes is None else classes, config["n"], seed=seed)
        similarities = labelled(aligned, indices, scratch.with_suffix(".indices.tmp"), over)
    finally:
        _clear(folder)
    del aligned
    labels = Triplets(store.ids, indices, similarities=similarities, source="pseudo")
    labels.save(folder)
    write_table(folder / "clusters.parquet", pa.table({"id": store.ids, "cluster": found.labels}))
    if config["npz"]:
        write_alignet(labels, folder / "alignet.npz")
    figures = label_figures(similarities)
    if figures["mean_entropy_share"] > _LEARNABLE:
        log.warning(
            "the labels' mean entropy is %.1f %% of that of guessing: almost nothing can be learned from them; "
            "check the teacher's scale (cosine-sized similarities?)",
            100 * figures["mean_entropy_share"],
        )
    return {**figures, "cluster_sizes": found.sizes.tolist(), "inertia": found.inertia, "iterations": found.iterations}


def _clear(folder: Path) -> None:
    """Remove scratch files, and a killed run's; workers of that, should any be left, do not know ours by name."""
    for file in folder.glob("aligned-*.tmp"):
        file.unlink()


def label_figures(similarities: np.ndarray) -> dict[str, Any]:
    """Return how much the labels say.

    Entropy (nats; also the mean as a share of ln 3), its histogram, and the margin by which the most similar pair leads
    the next; of both the mean and the 5, 50 and 95 % quantiles. And the share of ties.
    """
    nats, margins = np.empty((2, len(similarities)), dtype=np.float32)
    ties = 0
    for start in range(0, len(similarities), _ROWS):
        block = slice(start, start + _ROWS)
        values = torch.from_numpy(similarities[block])
        nats[block] = entropy(log_probabilities(values)).numpy()
        ordered = np.sort(similarities[block], axis=1)
        margins[block] = ordered[:, 2] - ordered[:, 1]
        ties += int((choose(values) < 0).sum())
    counts, _ = np.histogram(nats, bins=10, range=(0.0, float(np.log(3)) + 1e-6))
    mean = float(nats.mean(dtype=np.float64))
    return {
        "mean_entropy": mean,
        "mean_entropy_share": mean / float(np.log(3)),
        "entropy_quantiles": _quantiles(nats),
        "entropy_histogram": counts.tolist(),
        "mean_margin": float(margins.mean(dtype=np.float64)),
        "margin_quantiles": _quantiles(margins),
        "ties": ties / len(similarities),
    }


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.05, 0.5, 0.95))]


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

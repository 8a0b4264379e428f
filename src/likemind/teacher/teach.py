"""`teach`: fit the teacher, its penalty chosen on objects that the fit has not seen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likemind.artifacts import Artifact, PathLike, key_of_path, write_atomic
from likemind.choice import agreement, fit_temperature, log_probabilities
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore
from likemind.hashes import key_of
from likemind.progress import log, track
from likemind.readers.judgements import read_triplets
from likemind.teacher.teacher import IDENTITY, Teacher
from likemind.triplets import Triplets, read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003)


def teach(
    features: PathLike | FeatureStore,
    judgements: PathLike | Triplets,
    *,
    out: PathLike,
    folds: int = 3,
    penalties: Sequence[float] | None = None,
    groups: PathLike | Mapping[str, str] | None = None,
    preset: None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Teacher:
    """Fit a surrogate teacher to people's odd-one-out answers.

    The penalty is chosen by cross-validation over *objects*: a fold's map is fitted on triplets whose three objects are
    all in training, and judged by cross-entropy on triplets with at least one held-out object, after one temperature
    was fitted to these. The final map keeps that temperature, so that its probabilities suit unseen objects. The
    untransformed features are a candidate too; a map must beat them by two standard errors, else the teacher is the
    identity, and says so.

    Args:
        features: A store with a row for every judged item.
        judgements: A file (see ``read_judgements``) or triplets. Repeated answers to a triplet make its distribution.
        out: The teacher's directory.
        folds: Parts that the objects are split into, at least 2.
        penalties: Candidates; 0.3 to 0.003 by default.
        groups: Item → what it shows, or a table with the columns ``id`` and ``category`` (an evaluation folder's
            ``items.parquet``): where objects have several photographs, a fold keeps all of an object's together.
        preset: None.
        seed: Of the split.
        overwrite: Replace another run at ``out``.

    Returns:
        The teacher, fitted to all answers with the chosen penalty.

    Raises:
        LikemindError: Judgements name items without features, or there are too few to split.

    Example:
        >>> teach("runs/features", "answers.parquet", out="runs/teacher")  # doctest: +SKIP
    """
    if preset is not None:
        raise LikemindError(f"preset {preset!r} is not known: leave it out")
    store, answers = FeatureStore.load(features), read_triplets(judgements)
    candidates = sorted({float(p) for p in (PENALTIES if penalties is None else penalties)}, reverse=True)
    if not candidates or not all(math.isfinite(p) and p >= 0 for p in candidates):
        raise LikemindError(f"penalties must be finite numbers of at least 0, got {penalties}: mend --penalty")
    if folds < 2:
        raise LikemindError(f"folds must be at least 2, got {folds}: mend --folds")
    config: dict[str, Any] = {"folds": folds, "penalties": [repr(p) for p in candidates], "seed": seed}
    shows = _groups(groups) if groups is not None else {}
    inputs = {"features": store.key, "judgements": _key(judgements), "groups": key_of(groups=shows)}
    with Artifact(out, verb="teach", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            teacher = _fit(store, answers, folds, candidates, shows, seed)
            teacher.write(work.path)
            work.figures = {"penalty": repr(teacher.penalty), "source": answers.source, **teacher.facts_}
            write_atomic(work.path / "README.md", _card(teacher, store, answers).encode())
    return Teacher.load(out)


def _key(judgements: PathLike | Triplets) -> str:
    if isinstance(judgements, Triplets):
        columns = {name: _digest(value) for name, value in judgements.columns().items()}
        items, indices = list(judgements.items), _digest(judgements.indices)
        return key_of(items=items, indices=indices, source=judgements.source, columns=columns)
    return key_of_path(Path(judgements))


def _digest(values: np.ndarray) -> str:
    plain = repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(f"{values.dtype.str} {values.shape}".encode() + plain).hexdigest()


def _groups(groups: PathLike | Mapping[str, str]) -> dict[str, str]:
    if isinstance(groups, Mapping):
        return _known(groups.items())
    table = read_table(Path(groups))
    missing = [name for name in ("id", "category") if name not in table.column_names]
    if missing:
        raise LikemindError(f"{groups} has no column {', '.join(missing)}: name another --groups")
    return _known(zip(table.column("id").to_pylist(), table.column("category").to_pylist(), strict=True))


def _known(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Leave out items of which nobody says what they show: each stands for itself."""
    return {str(name): str(shows) for name, shows in pairs if shows not in (None, "")}


def _fit(
    store: FeatureStore, judgements: Triplets, folds: int, penalties: list[float], groups: dict[str, str], seed: int
) -> Teacher:
    judgements.positions_in(store.ids, f"the features ({store.path})")
    items = judgements.used_items
    X = store.rows(items)
    own = replace(judgements, items=items, indices=judgements.positions_in(items, "the judged items"))
    triplets, targets, answers = own.targets()
    objects, object_of = np.unique([groups.get(name, name) for name in items], return_inverse=True)
    if len(objects) < 3 * folds:
        raise LikemindError(
            f"{len(objects)} judged objects are too few for {folds} folds: give more items, or fewer --folds"
        )
    results = cross_validate(X, triplets, targets, answers, folds, penalties, seed, object_of=object_of.reshape(-1))
    best = min((row for row in results if row["gain"] >= row["gain_needed"]), key=lambda row: row["cross_entropy"])
    chosen = IDENTITY if best["penalty"] is None else best["penalty"]
    if chosen == IDENTITY:
        log.warning("no map beats the untransformed features on unseen objects: the teacher is the identity")
    teacher = Teacher(chosen).fit(X, triplets, targets, answers)
    teacher.calibrate(best["temperature"])
    teacher.backbone_ = store.fingerprint
    teacher.cv_results_ = results
    teacher.facts_ = {
        "items": len(items),
        "triplets": len(triplets),
        "answers": len(judgements),
        "source": judgements.source,
        "backbone_name": store.run["figures"]["backbone_name"],
        "agreement_unseen": best["agreement"],
        "agreement_unseen_identity": results[0]["agreement"],
        "ceiling": float((targets.max(axis=1) * answers).sum() / answers.sum()),
    }
    return teacher


def cross_validate(
    X: np.ndarray,
    triplets: np.ndarray,
    targets: np.ndarray,
    answers: np.ndarray,
    folds: int,
    penalties: list[float],
    seed: int,
    object_of: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return, for the identity (penalty None) and each penalty, how well people's answers on unseen objects are met.

    Each row holds ``temperature``, the one that suits the validation triplets of all folds best; ``cross_entropy`` at
    that temperature; ``agreement``; both weighted by answers; ``n``, the triplets judged; ``gain``, the cross-entropy
    that is saved against the identity, and ``gain_needed``, two standard errors of it. ``object_of`` (m,) says
    which rows of X show the same object; each its own if None.
    """
    shown = np.arange(len(X)) if object_of is None else object_of
    fold_of = (np.random.default_rng(seed).permutation(shown.max() + 1) % folds)[shown]
    seen: dict[float, list[torch.Tensor]] = {penalty: [] for penalty in (IDENTITY, *penalties)}
    held_rows = []
    for fold in track(range(folds), total=folds, what="teach (folds)"):
        held = (fold_of == fold)[triplets].any(axis=1)
        if held.all() or not held.any():
            raise LikemindError(f"the answers are too few for {folds} folds of objects: give more, or fewer --folds")
        held_rows.append(np.flatnonzero(held))
        objects = np.flatnonzero(fold_of != fold)
        place = np.full(len(X), -1)
        place[objects] = np.arange(len(objects))
        start: Teacher | None = None
        for penalty, similarities in seen.items():
            teacher = Teacher(penalty).fit(
                X[objects], place[triplets[~held]], targets[~held], answers[~held], start=start
            )
            start = None if penalty == IDENTITY else teacher
            similarities.append(teacher.similarities(X, triplets[held]))
    rows = np.concatenate(held_rows)
    judged = [_judged(penalty, torch.cat(parts), targets[rows], answers[rows]) for penalty, parts in seen.items()]
    return [_against(row, by_triplet, judged[0][1], answers[rows]) for row, by_triplet in judged]


def _judged(
    penalty: float, similarities: torch.Tensor, targets: np.ndarray, answers: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    temperature = fit_temperature(similarities, torch.from_numpy(targets * (answers / answers.mean())[:, None]))
    log_p = log_probabilities(similarities, temperature).numpy()
    by_triplet = -(targets * log_p).sum(axis=1)
    agreed = agreement(similarities, torch.from_numpy(targets)).numpy()
    row = {
        "penalty": None if penalty == IDENTITY else penalty,
        "temperature": temperature,
        "cross_entropy": float(np.average(by_triplet, weights=answers)),
        "agreement": float(np.average(agreed, weights=answers)),
        "n": len(log_p),
    }
    return row, by_triplet


def _against(row: dict[str, Any], ours: np.ndarray, identity: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Add what the map gains over the identity, and what it must gain to be told from noise: two standard errors."""
    share = answers / answers.sum()
    gains = identity - ours
    gain = float(share @ gains)
    return row | {"gain": gain, "gain_needed": 2 * float(np.sqrt((share**2) @ (gains - gain) ** 2))}


def _said(penalty: float | None) -> str:
    return "identity" if penalty is None else str(penalty)


def _card(teacher: Teacher, store: FeatureStore, judgements: Triplets) -> str:
    rows = "\n".join(
        f"| {_said(row['penalty'])} | {row['cross_entropy']:.4f} | {row['agreement']:.4f} |"
        for row in teacher.cv_results_
    )
    facts = teacher.facts_
    return f"""# A surrogate teacher made by Likemind

One affine map on the features of `{facts["backbone_name"]}`, fitted to {facts["answers"]:,} odd-one-out answers
(source: **{judgements.source}**) on {facts["triplets"]:,} triplets of {facts["items"]:,} items, after AligNet
(Muttenthaler et al., Nature 2025). Chosen penalty: {"identity" if teacher.is_identity else teacher.penalty}.

Cross-validation over objects; each triplet judged has at least one object that the fit had not seen. Agreement is the
mean share of answers that the teacher's choice got; chance 0.333, ceiling {facts["ceiling"]:.3f}.

| penalty | cross-entropy, nats | agreement |
|---|---|---|
{rows}

Load it with `likemind.Teacher.load(folder)`; it takes features of the same backbone, layer and preprocessing only
(fingerprint `{store.fingerprint[:16]}…`).
"""

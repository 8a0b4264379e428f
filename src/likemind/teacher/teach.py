"""`teach`: fit the teacher, its penalty chosen on objects that the fit has not seen."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from likemind.artifacts import Artifact, PathLike, key_of_path, write_atomic
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError, few
from likemind.features.embed import embed
from likemind.features.store import FeatureStore
from likemind.hashes import key_of
from likemind.progress import log
from likemind.readers.categories import read_categories
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.judgements import Judgements, read_judgements, read_triplets
from likemind.readers.ratings import RatingMatrix
from likemind.teacher.card import card
from likemind.teacher.crossvalidate import SHOTS, Answered, Targets, as_counted, cross_validate
from likemind.teacher.teacher import IDENTITY, Teacher
from likemind.triplets import Triplets

PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
MIXES = (1.0, 0.5)
PEOPLE = {
    "counts": "the share of answers that each pair got",
    "posterior": "what a variational embedding of the answers predicts (VICE)",
}

PRESETS = {"alignet": "timm/vit_so400m_patch14_siglip_384.webli"}
"""The paper's teacher: SigLIP-So400m at 384 px, pooled output (1,152 numbers)."""

_OTHERS = 2048
"""Other images at most: their local term looks at all pairs in every step."""

_DRAWN = 1_000_000
"""Triplets that an embedding of people is asked about."""

Stores = PathLike | FeatureStore | Sequence[PathLike | FeatureStore]


def teach(
    features: Stores,
    judgements: PathLike | Judgements,
    *,
    out: PathLike,
    folds: int = 3,
    penalties: Sequence[float] | None = None,
    mixes: Sequence[float] = MIXES,
    people: Literal["counts", "posterior"] | None = None,
    groups: PathLike | Mapping[str, str] | None = None,
    max_loss: float = 1.0,
    others: Stores | None = None,
    local_weight: float = 0.25,
    preset: Literal["alignet"] | None = None,
    weights: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Teacher:
    """Fit a surrogate teacher to people's odd-one-out answers.

    The map is chosen by cross-validation over *objects* (``likemind.teacher.crossvalidate``): a fold's map is fitted on
    triplets whose three objects are all in training, and judged on triplets with two or three held-out objects, of
    which no pair was seen, after one temperature was fitted to these. The final map keeps that temperature, so that its
    probabilities suit unseen objects. The untransformed features are a candidate too; a map must beat them by two
    standard errors, else the teacher is the identity, and says so.

    Args:
        features: A store with a row for every judged item; or several, whose rows are joined.
        judgements: A file (see ``read_judgements``) or judgements. Repeated answers to a triplet make its distribution.
            A model of people (``HumanEmbedding``) is asked about a million triplets of items that have features.
        out: The teacher's directory.
        folds: Parts that the objects are split into, at least 2.
        penalties: Candidates; 0.3 to 0.0003 by default.
        mixes: Candidates for the map's share in the similarities, in (0, 1].
        people: ``counts``: people's distribution is the share of answers. ``posterior``: it is what a variational
            embedding of the answers predicts (VICE), fitted to each fold's own answers; AligNet's way, for sparse
            answers to millions of triplets. ``counts`` if None, with a preset ``posterior``.
        groups: Item → what it shows, or a table with the columns ``id`` and ``category`` (an evaluation folder's
            ``items.parquet``). Where objects have several photographs, a fold keeps all of an object's together; where
            there are six or more of objects that a fold has not seen, few-shot accuracy is measured on these.
        max_loss: Points of 5-shot accuracy on unseen classes that a map must lose less than.
        others: Features of other images, whose neighbourhoods are to stay as they are (gLocal's local term); of more
            than 2,048 so many are drawn. By the backbone of ``features``; joined in the same order.
        local_weight: Share of that wish in the objective, in [0, 1).
        preset: ``alignet``: the paper's teacher. ``features`` are the THINGS photographs then, which are embedded by
            SigLIP-So400m at 384 px into ``OUT-features``.
        weights: For the preset: a file of weights, instead of timm's own.
        seed: Of the split.
        overwrite: Replace another run at ``out``.

    Returns:
        The teacher, fitted to all answers with the chosen penalty.

    Raises:
        LikemindError: Judgements name items without features, or there are too few to split.

    Example:
        >>> teach("runs/features", "answers.parquet", out="runs/teacher")  # doctest: +SKIP
    """
    people = people or ("counts" if preset is None else "posterior")
    settings = _Settings(folds, penalties, mixes, people, max_loss, local_weight if others is not None else 0.0, seed)
    answers = read_judgements(judgements)
    if isinstance(answers, RatingMatrix):
        read_triplets(judgements)  # which refuses
    store = _embedded(preset, features, weights, out, overwrite=overwrite)
    elsewhere = None if others is None else FeatureStore.load(others)
    shows = read_categories(groups, "--groups") if groups is not None else {}
    inputs = {"features": store.key, "judgements": _key(judgements), "groups": key_of(groups=shows)}
    if elsewhere is not None:
        if elsewhere.fingerprint != store.fingerprint:
            raise LikemindError(
                f"the other images' features {elsewhere.path} come from another backbone, layer or preprocessing than "
                f"{store.path}: embed the other images by the same, and join them in the same order"
            )
        inputs["others"] = elsewhere.key
    with Artifact(
        out, verb="teach", config=settings.config(), inputs=inputs, overwrite=overwrite, recipe_version=2
    ) as work:
        if not work.done:
            teacher = _fit(store, _triplets(answers, store, seed), settings, shows, elsewhere)
            teacher.write(work.path)
            work.figures = {"penalty": repr(teacher.penalty), **teacher.facts_}
            write_atomic(work.path / "README.md", card(teacher).encode())
    return Teacher.load(out)


@dataclass(frozen=True)
class _Settings:
    folds: int
    penalties: Sequence[float] | None
    mixes: Sequence[float]
    people: str
    max_loss: float
    local_weight: float
    seed: int

    def __post_init__(self) -> None:
        candidates = PENALTIES if self.penalties is None else self.penalties
        if not candidates or not all(math.isfinite(p) and p >= 0 for p in candidates):
            raise LikemindError(f"penalties must be finite numbers of at least 0, got {candidates}: mend --penalty")
        if not self.mixes or not all(0 < mix <= 1 for mix in self.mixes):
            raise LikemindError(f"mixes must be above 0 and at most 1, got {self.mixes}: mend --mix")
        if self.folds < 2:
            raise LikemindError(f"folds must be at least 2, got {self.folds}: mend --folds")
        if self.people not in PEOPLE:
            raise LikemindError(f"people {self.people!r} is not one of {', '.join(PEOPLE)}: mend --people")
        if not self.max_loss >= 0:
            raise LikemindError(f"max_loss must be at least 0 points, got {self.max_loss}: mend --max-loss")
        if not 0 <= self.local_weight < 1:
            raise LikemindError(f"local_weight must be at least 0 and below 1, got {self.local_weight}: mend it")
        object.__setattr__(self, "penalties", sorted({float(p) for p in candidates}, reverse=True))
        object.__setattr__(self, "mixes", sorted({float(mix) for mix in self.mixes}, reverse=True))

    def config(self) -> dict[str, Any]:
        told = {"folds": self.folds, "people": self.people, "max_loss": self.max_loss, "seed": self.seed}
        told |= {"penalties": [repr(p) for p in self.penalties or []], "mixes": [repr(mix) for mix in self.mixes]}
        return told | {"local_weight": repr(self.local_weight)}

    def targets(self) -> Targets:
        if self.people == "counts":
            return as_counted
        from likemind.teacher.posterior import as_posterior

        return partial(as_posterior, seed=self.seed)


def _triplets(judgements: Judgements, store: FeatureStore, seed: int) -> Triplets:
    """Return answers as they are; of a model of people, what it says of triplets of items that have features."""
    if not isinstance(judgements, HumanEmbedding):
        return read_triplets(judgements)
    here = set(store.ids)
    rows = [row for row, name in enumerate(judgements.items) if name in here]
    if len(rows) < 3:
        raise LikemindError(
            f"{store.path} has features of {len(rows)} items of the embedding: three at least are needed"
        )
    if len(rows) < len(judgements):
        log.warning("%d of the embedding's %d items have features; the others are left out", len(rows), len(judgements))
    known = HumanEmbedding([judgements.items[row] for row in rows], judgements.embedding[rows], judgements.source)
    return known.triplets(min(_DRAWN, math.comb(len(rows), 3)), seed)


def _key(judgements: PathLike | Judgements) -> str:
    if isinstance(judgements, HumanEmbedding):
        return key_of(items=list(judgements.items), rows=_digest(judgements.embedding), source=judgements.source)
    if isinstance(judgements, Triplets):
        columns = {name: _digest(value) for name, value in judgements.columns().items()}
        items, indices = list(judgements.items), _digest(judgements.indices)
        return key_of(items=items, indices=indices, source=judgements.source, columns=columns)
    assert not isinstance(judgements, RatingMatrix)
    return key_of_path(Path(judgements))


def _digest(values: np.ndarray) -> str:
    plain = repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(f"{values.dtype.str} {values.shape}".encode() + plain).hexdigest()


def _fit(
    store: FeatureStore,
    judgements: Triplets,
    settings: _Settings,
    groups: dict[str, str],
    elsewhere: FeatureStore | None,
) -> Teacher:
    data, objects = _answered(store, judgements, groups, _others(elsewhere, settings.seed))
    if objects < 3 * settings.folds:
        raise LikemindError(
            f"{objects} judged objects are too few for {settings.folds} folds: give more items, or fewer --folds"
        )
    assert settings.penalties is not None
    table = cross_validate(
        data,
        folds=settings.folds,
        penalties=settings.penalties,
        mixes=settings.mixes,
        local_weight=settings.local_weight,
        targets=settings.targets(),
        max_loss=settings.max_loss,
        seed=settings.seed,
    )
    best = next(row for row in table if row["chosen"])
    chosen = IDENTITY if best["penalty"] is None else best["penalty"]
    if chosen == IDENTITY:
        log.warning("no map beats the untransformed features on unseen objects: the teacher is the identity")
    teacher = Teacher(chosen, mix=best["mix"], local_weight=settings.local_weight)
    problem = data.problem(settings.targets(), settings.local_weight)
    teacher.take(problem, problem.identity() if teacher.is_identity else problem.solve(chosen))
    teacher.calibrate(best["temperature"])
    teacher.backbone_, teacher.cv_results_ = store.fingerprint, table
    teacher.facts_ = _facts(store, judgements, data, table, best, settings)
    return teacher


def _facts(
    store: FeatureStore,
    judgements: Triplets,
    data: Answered,
    table: list[dict[str, Any]],
    best: dict[str, Any],
    settings: _Settings,
) -> dict[str, Any]:
    shots: dict[str, Any] = {name: best[name] for name in ("fewshot", "fewshot_loss") if name in best}
    return shots | {
        "items": len(data.X),
        "triplets": len(data.triplets),
        "answers": len(judgements),
        "source": judgements.source,
        "people": PEOPLE[settings.people],
        "backbone_name": store.run["figures"]["backbone_name"],
        "agreement_unseen": best["agreement"],
        "agreement_unseen_identity": table[0]["agreement"],
        "ceiling": float((data.targets.max(axis=1) * data.answers).sum() / data.answers.sum()),
        "max_loss": settings.max_loss,
    }


def _others(store: FeatureStore | None, seed: int) -> np.ndarray | None:
    if store is None:
        return None
    drawn = np.random.default_rng(seed).permutation(len(store))[:_OTHERS]
    return _finite(store, [store.ids[row] for row in np.sort(drawn)])


def _finite(store: FeatureStore, ids: Sequence[str]) -> np.ndarray:
    rows = store.rows(ids)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        named = few([ids[int(row)] for row in wrong])
        raise LikemindError(f"{store.path} has features of {named} that are not finite: embed the images again")
    return rows


def _answered(
    store: FeatureStore, judgements: Triplets, groups: dict[str, str], others: np.ndarray | None
) -> tuple[Answered, int]:
    """Join answers to features, by id; return them, and how many objects were judged."""
    judgements.positions_in(store.ids, f"the features ({store.path})")
    items = judgements.used_items
    own = replace(judgements, items=items, indices=judgements.positions_in(items, "the judged items"))
    triplets, targets, answers = own.targets()
    number: dict[str, int] = {}
    object_of = [number.setdefault(groups.get(name, name), len(number)) for name in items]
    objects = len(number)
    shown = [name for name in store.ids if name in groups]
    shows = np.array([number.setdefault(groups[name], len(number)) for name in shown], dtype=np.int64)
    enough = np.flatnonzero(np.bincount(shows, minlength=1)[shows] > SHOTS)
    pictures = _finite(store, [shown[row] for row in enough])
    levels = None if own.level is None else own.level[np.unique(own.names(), return_index=True)[1]]
    return Answered(
        _finite(store, items),
        triplets,
        targets,
        answers,
        np.array(object_of),
        pictures,
        shows[enough],
        blocks=store.blocks,
        others=others,
        levels=levels,
    ), objects


def _embedded(
    preset: str | None, images: Stores, weights: str | None, out: PathLike, *, overwrite: bool
) -> FeatureStore:
    """Embed photographs by the preset's backbone, unless they are features already."""
    if preset not in (None, *PRESETS):
        raise LikemindError(f"preset {preset!r} is not known: choose {', '.join(PRESETS)}, or leave it out")
    if preset is None and weights is not None:
        raise LikemindError("weights belong to a preset's backbone: name the preset too, or leave them out")
    if preset is None or not isinstance(images, str | os.PathLike) or (Path(images) / "features.npy").exists():
        return FeatureStore.load(images)
    backbone = load_backbone(PRESETS[preset], weights=weights)
    return embed(images, backbone, out=f"{os.fspath(out)}-features", overwrite=overwrite)

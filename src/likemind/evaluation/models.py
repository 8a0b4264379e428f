"""Anything that can be scored: an aligned model, a teacher, a plain backbone. Each gives an embedding a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likemind.artifacts import read_json
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError
from likemind.student.model import AlignedModel, unit
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from likemind.artifacts import PathLike
    from likemind.backbones.base import Backbone


@dataclass(frozen=True, eq=False)
class Model:
    """A model under evaluation.

    Attributes:
        name: Such as ``base`` or ``aligned``.
        path: As it was given.
        backbone: Whose pooled output everything starts from.
        embeddings: Pooled output (n, d) → layer → unit rows (n, ·).
        raw: Pooled output (n, d) → layer → rows of any length, whose dot products are scored beside the cosines; a mix
            of layers has none.
        layers: Their names.
        similarity: Layer → how its cosine is taken.
        key: Hash of all that decides the embeddings.
    """

    name: str
    path: str
    backbone: Backbone
    embeddings: Callable[[np.ndarray], dict[str, np.ndarray]]
    raw: Callable[[np.ndarray], dict[str, np.ndarray]]
    layers: tuple[str, ...]
    similarity: dict[str, str]
    key: str

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to know which model this was."""
        recipe = self.backbone.preprocessing.model_dump(mode="json")
        told = {"path": self.path, "layers": list(self.layers), "backbone": self.backbone.name, "preprocessing": recipe}
        made = Path(self.path) / "run.json"
        if made.exists():
            run = read_json(made)
            told["made"] = {name: run.get(name) for name in ("verb", "key", "config")}
        measured = Path(self.path) / "retention.json"
        return told | ({"retention": read_json(measured)} if measured.exists() else {})


def open_models(models: Mapping[str, PathLike] | Sequence[PathLike]) -> list[Model]:
    """Open models by name; from a plain list, each is named after its folder.

    Raises:
        LikemindError: No model, a name twice, or something that cannot be scored.
    """
    named: dict[str, PathLike] = {}
    if isinstance(models, Mapping):
        named.update(models)
    else:
        for path in models:
            name = Path(path).name
            if name in named:
                raise LikemindError(f"two models are named {name!r}: name them, as in {name}-2={path}")
            named[name] = path
    if not named:
        raise LikemindError("there is no model to evaluate: give at least one")
    opened: dict[str, Model] = {}
    for name, path in named.items():
        if not name or "@" in name:
            raise LikemindError(f"{name!r} cannot name a model: use a name without @")
        if not (Path(path) / "teacher.json").exists():
            aligned = (Path(path) / "likemind.json").exists()
            opened[name] = _aligned(name, str(path)) if aligned else _plain(name, str(path))
    at_hand = [model.backbone for model in opened.values()]
    return [opened.get(name) or _teacher(name, str(path), at_hand) for name, path in named.items()]


def _aligned(name: str, path: str) -> Model:
    model = AlignedModel.from_pretrained(path)
    described = {"backbone": "cosine, centred", "head": "cosine"}
    shipped = {"backbone": "cosine, centred", "head": "cosine"}.get(model.config.shipped, "cosine, part centred")
    similarity = {layer: {**described, "shipped": shipped}[layer] for layer in model.layers}

    def raw(pooled: np.ndarray) -> dict[str, np.ndarray]:
        rows = {"backbone": pooled - model.centre}
        if model.head_weight is not None and model.head_bias is not None:
            rows["head"] = pooled @ model.head_weight.T + model.head_bias
        shipped = model.config.shipped
        return rows | ({"shipped": rows[shipped]} if "shipped" in model.layers and shipped in rows else {})

    return Model(name, path, model.backbone, model.embeddings, raw, model.layers, similarity, model.key)


def _teacher(name: str, path: str, at_hand: list[Backbone]) -> Model:
    """A teacher stands on a backbone: one of the models under evaluation, or the one that its card names."""
    teacher = Teacher.load(path)
    backbone = next((b for b in at_hand if b.fingerprint == teacher.backbone_), None)
    if backbone is None:
        known = str(teacher.facts_["backbone_name"])
        try:
            backbone = load_backbone(known)
        except LikemindError as error:
            raise LikemindError(
                f"the backbone of the teacher {path} is not among the models, and {known!r} cannot be loaded here "
                f"({error}): evaluate its base model beside it"
            ) from None
        teacher.check_backbone(backbone.fingerprint, f"the backbone {backbone.name}")

    def raw(pooled: np.ndarray) -> dict[str, np.ndarray]:
        return {"teacher": teacher.transform(pooled)}

    def embeddings(pooled: np.ndarray) -> dict[str, np.ndarray]:
        return {"teacher": unit(raw(pooled)["teacher"])}

    return Model(name, path, backbone, embeddings, raw, ("teacher",), {"teacher": "cosine"}, teacher.key)


def _plain(name: str, path: str) -> Model:
    backbone = load_backbone(path)

    def embeddings(pooled: np.ndarray) -> dict[str, np.ndarray]:
        return {"backbone": unit(pooled)}

    def raw(pooled: np.ndarray) -> dict[str, np.ndarray]:
        return {"backbone": pooled}

    return Model(name, path, backbone, embeddings, raw, ("backbone",), {"backbone": "cosine"}, backbone.fingerprint)

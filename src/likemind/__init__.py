"""Likemind gives any vision model a human sense of similarity.

Every public name is imported when it is first used, so that ``likemind --help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "AlignedModel": "likemind.student.model",
    "Backbone": "likemind.backbones.base",
    "EvaluationSet": "likemind.datasets.evaluation_set",
    "FeatureStore": "likemind.features.store",
    "HumanEmbedding": "likemind.readers.embeddings",
    "ImageCollection": "likemind.images.collection",
    "LikemindError": "likemind.errors",
    "Preprocessing": "likemind.images.decode",
    "RECIPES": "likemind.alignment.recipe",
    "RatingMatrix": "likemind.readers.ratings",
    "Recipe": "likemind.alignment.recipe",
    "Results": "likemind.evaluation.results",
    "Teacher": "likemind.teacher.teacher",
    "Triplets": "likemind.triplets",
    "align": "likemind.alignment.align",
    "data": "likemind.datasets.obtain",
    "demo": "likemind.worlds.demo",
    "doctor": "likemind.diagnosis",
    "embed": "likemind.features.embed",
    "evaluate": "likemind.evaluation.suite",
    "judgements": "likemind.readers.summary",
    "label": "likemind.pseudolabels.label",
    "load_backbone": "likemind.backbones.timm",
    "open_images": "likemind.images.collection",
    "read_judgements": "likemind.readers.judgements",
    "report": "likemind.reporting.report",
    "teach": "likemind.teacher.teach",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604

if TYPE_CHECKING:
    from likemind.alignment.align import align as align
    from likemind.alignment.recipe import RECIPES as RECIPES
    from likemind.alignment.recipe import Recipe as Recipe
    from likemind.backbones.base import Backbone as Backbone
    from likemind.backbones.timm import load_backbone as load_backbone
    from likemind.datasets.evaluation_set import EvaluationSet as EvaluationSet
    from likemind.datasets.obtain import data as data
    from likemind.diagnosis import doctor as doctor
    from likemind.errors import LikemindError as LikemindError
    from likemind.evaluation.results import Results as Results
    from likemind.evaluation.suite import evaluate as evaluate
    from likemind.features.embed import embed as embed
    from likemind.features.store import FeatureStore as FeatureStore
    from likemind.images.collection import ImageCollection as ImageCollection
    from likemind.images.collection import open_images as open_images
    from likemind.images.decode import Preprocessing as Preprocessing
    from likemind.pseudolabels.label import label as label
    from likemind.readers.embeddings import HumanEmbedding as HumanEmbedding
    from likemind.readers.judgements import read_judgements as read_judgements
    from likemind.readers.ratings import RatingMatrix as RatingMatrix
    from likemind.readers.summary import judgements as judgements
    from likemind.reporting.report import report as report
    from likemind.student.model import AlignedModel as AlignedModel
    from likemind.teacher.teach import teach as teach
    from likemind.teacher.teacher import Teacher as Teacher
    from likemind.triplets import Triplets as Triplets
    from likemind.worlds.demo import demo as demo


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'likemind' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

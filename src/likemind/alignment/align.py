"""`align`: fine-tune all of a student's weights on the teacher's similarities, without straying far from its own."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likemind.alignment.checkpoint import BEST, LAST, Standing
from likemind.alignment.known import Known
from likemind.alignment.ladder import LONG, climb
from likemind.alignment.others import Others
from likemind.alignment.recipe import Recipe, resolve_recipe
from likemind.alignment.retention import Validation, choose_shipped, measure
from likemind.alignment.rounds import clear_rounds, train_rounds
from likemind.alignment.trainer import Running
from likemind.artifacts import Artifact, PathLike, read_run, write_json
from likemind.backbones.layers import OWN
from likemind.backbones.timm import load_backbone
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore
from likemind.images.collection import ImageCollection, open_images
from likemind.progress import log
from likemind.student.card import model_card
from likemind.student.model import AlignedModel, ModelConfig
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from likemind.alignment.trainee import Student
    from likemind.backbones.base import Backbone


def align(
    images: PathLike | ImageCollection,
    backbone: str | Backbone,
    *,
    teacher: PathLike | Teacher | None = None,
    triplets: PathLike | None = None,
    features: PathLike | FeatureStore | None = None,
    validation: PathLike | EvaluationSet | None = None,
    out: PathLike,
    recipe: str | Recipe = "small",
    changes: dict[str, object] | None = None,
    control: bool = False,
    seed: int = 0,
    weights: str | None = None,
    preprocessing: Literal["alignet"] | None = None,
    ladder: bool | None = None,
    workers: int | None = None,
    images_at_once: int | None = None,
    compiled: bool = False,
    tracker: Any = None,
    overwrite: bool = False,
) -> AlignedModel:
    """Align a student.

    In several processes (``torchrun``, ``accelerate launch``) all call this alike; they share each batch's images, and
    must see the same files.

    Args:
        images: What the student learns from; no labels are used.
        backbone: The student, as for ``load_backbone``.
        teacher: Gives the labels on the fly. Needed for the ``mixture`` target and for packed batches.
        triplets: An output of ``likemind label``: its clusters group the images; its triplets and similarities are
            those of independent batches for the ``paper`` target.
        features: The *teacher's* backbone's features of the images; needed where the student is another backbone.
        validation: An evaluation folder whose validation objects decide what is shipped, and its temperature. Without
            it the backbone is shipped as it was trained.
        out: The student's directory.
        recipe: ``smoke``, ``small``, ``paper``, or a ``Recipe``.
        changes: Fields of the recipe to change.
        control: Learn from the *untransformed* teacher (UnAligNet), to tell human signal from mere distillation.
        seed: Of batches and of a random head.
        weights: As for ``load_backbone``.
        preprocessing: ``alignet`` prepares pictures as AligNet does, instead of as the backbone's own authors do.
        ladder: Whether the ladder of tests is climbed first (see ``likemind.alignment.ladder``); before runs of 300
            steps and more if None.
        workers: Threads that decode; one less than there are processors if None. They change nothing else.
        images_at_once: Images forwarded at once by a process, where a batch does not fit into memory. The gradient is
            that of the whole batch all the same; each image goes forward twice.
        compiled: Compile the network with ``torch.compile``.
        tracker: One of Accelerate's, such as ``tensorboard`` or ``wandb``, beside ``metrics.jsonl``.
        overwrite: Replace another run at ``out``.

    Returns:
        The student, in evaluation mode.

    Raises:
        LikemindError: What is given does not fit together, a rung of the ladder is broken, the loss is not finite, or
            memory runs out.

    Example:
        >>> align("photos/", "timm/test_vit", teacher="runs/teacher", out="runs/aligned")  # doctest: +SKIP
    """
    collection = open_images(images)
    model = load_backbone(backbone, weights=weights, preprocessing=preprocessing)
    plan = resolve_recipe(recipe, changes)
    data = EvaluationSet.load(validation) if validation is not None else None
    fitted = Teacher.load(teacher) if teacher is not None else None
    labels = read_run(triplets, verb="label") if triplets is not None else None
    _check(plan, fitted, labels, model, control=control)
    if data is not None:
        _check_unseen(collection, data)
    config = {"recipe": plan.model_dump(mode="json"), "backbone": model.fingerprint, "control": control, "seed": seed}
    inputs = {
        "images": collection.key(),
        "teacher": fitted.key if fitted else "",
        "triplets": labels["key"] if labels else "",
    }
    inputs["features"] = FeatureStore.load(features).key if features is not None else ""
    inputs["validation"] = data.key if data else ""
    running = Running(workers, images_at_once, compiled, tracker)

    def known_in(folder: Path) -> Known:
        return Known(folder, collection, model, fitted, triplets, features, control, seed)

    others = Others()
    if not others.first:
        folder = others.hear()
        if folder is not None:
            train_rounds(known_in(Path(folder)), plan, seed, Path(folder), running)
            others.hear()
        return AlignedModel.from_pretrained(out, backbone=model.module if model.library == "module" else None)
    with Artifact(out, verb="align", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            known = known_in(work.path)
            known.check(plan)
            watched = Validation(data, seed, model) if data is not None else None
            if (plan.steps >= LONG if ladder is None else ladder) and "ladder" not in work.notes:
                work.note(ladder=[asdict(rung) for rung in climb(known, plan, seed, running)])
            others.tell(str(work.path))
            student, standing = train_rounds(known, plan, seed, work.path, running, watched)
            work.figures = _ship(
                student, known, plan, watched, work.path, standing, _about_base(backbone, model, weights)
            )
            work.figures["ladder"] = work.notes.get("ladder", [])
    others.tell(None)
    return AlignedModel.from_pretrained(out, backbone=model.module if model.library == "module" else None)


def _check(
    recipe: Recipe, teacher: Teacher | None, labels: dict[str, Any] | None, backbone: Backbone, *, control: bool
) -> None:
    from_file = labels is not None and recipe.batching == "independent" and recipe.target == "paper"
    if backbone.layer not in OWN:
        raise LikemindError(
            f"the layer {backbone.layer!r} cannot be aligned, a student is what its network returns: leave it out"
        )
    if teacher is None and (recipe.target == "mixture" or recipe.batching == "packed"):
        raise LikemindError(
            "the mixture target and packed batches need a teacher: pass --teacher, or --set target=paper "
            "--set batching=independent --triplets LABELS"
        )
    if teacher is None and labels is None:
        raise LikemindError(
            "nothing says what is similar: pass --teacher, or --triplets, an output of `likemind label`"
        )
    if labels is not None and from_file and labels["config"]["control"] != control:
        made, here = ("with", "without") if labels["config"]["control"] else ("without", "with")
        raise LikemindError(f"the labels were made {made} --control and this run is {here} it: make both alike")
    if recipe.rounds > 1 and recipe.target == "paper":
        raise LikemindError(
            "in rounds the mixture's fixed head teaches, and the paper target's learns: pass --set rounds=1"
        )
    if recipe.target == "mixture" and recipe.tuning == "head":
        raise LikemindError(
            "the mixture target teaches the backbone and has no head that learns: pass --set target=paper, or "
            "--set tuning=lora"
        )
    if teacher is None and recipe.head == "teacher":
        raise LikemindError(
            "a head that starts from the teacher's map needs a teacher: pass --teacher, or --set head=random"
        )


def _check_unseen(images: ImageCollection, data: EvaluationSet) -> None:
    """Refuse to train on what the student is to be judged by."""
    judged = {item.id for item in data.items if item.split != "train"}
    seen = [name for name in images.ids if name in judged]
    if seen:
        raise LikemindError(
            f"{len(seen)} of the training images ({seen[0]!r}, …) are validation or held-out items of {data.path}: "
            "leave them out"
        )


def _about_base(given: str | Backbone, backbone: Backbone, weights: str | None) -> dict[str, str | None]:
    """Return the Hub's id of the pretrained weights, where they came from there, and the licence that timm names."""
    pretrained = backbone.config.get("pretrained_cfg", {})
    if backbone.library != "timm":
        return {"base_model": backbone.config.get("hub_id"), "base_licence": ""}
    named, own = isinstance(given, str), weights is None
    fetched = named and own and not Path(str(given)).exists() and pretrained.get("tag")
    hub_id = f"timm/{pretrained['architecture']}.{pretrained['tag']}" if fetched else None
    return {"base_model": hub_id, "base_licence": str(pretrained.get("license") or "") if named and own else ""}


def _about_teacher(teacher: Teacher | None) -> dict[str, Any] | None:
    """Return what a model card tells of the teacher."""
    if teacher is None:
        return None
    return {**teacher.facts_, "penalty": None if teacher.is_identity else teacher.penalty}


def _ship(
    student: Student,
    known: Known,
    recipe: Recipe,
    validation: Validation | None,
    folder: Path,
    standing: Standing,
    about_base: dict[str, str | None],
) -> dict[str, Any]:
    student.cpu().eval()
    figures: dict[str, Any] = {"images": len(known.images), "steps": standing.step, "control": known.control}
    model = student.at(1.0)
    if validation is not None:
        base, candidates = measure(student.at, recipe, validation)
        chosen = choose_shipped(base, candidates, recipe.max_loss)
        model = student.at(chosen.alpha)
        model.config = ModelConfig(shipped=chosen.shipped, alpha=chosen.alpha, beta=chosen.beta)
        rows = model.embeddings(validation.pooled(model))
        temperatures = {layer: validation.temperature(values) for layer, values in rows.items()}
        model.config = model.config.model_copy(update={"temperatures": temperatures})
        figures |= {"base": base.figures(), "shipped": chosen.figures()}
        figures["candidates"] = [candidate.figures() for candidate in candidates]
        figures["source"] = validation.data.description.source
        log.info("shipped: %s at alpha %g, beta %g", chosen.shipped, chosen.alpha, chosen.beta)
    facts = {
        "base": student.about.name,
        **about_base,
        "teacher": _about_teacher(known.teacher),
        "recipe": recipe.model_dump(mode="json"),
        "target": recipe.target,
        "control": known.control,
    }
    licences = validation.data.description.licences if validation is not None else {}
    model.config = model.config.model_copy(update={"facts": {**facts, "licences": licences}})
    model.save_pretrained(folder, card=model_card(model, figures))
    write_json(
        folder / "retention.json", _finite({name: figures.get(name) for name in ("base", "shipped", "candidates")})
    )
    clear_rounds(folder)
    shutil.rmtree(folder / "base-features", ignore_errors=True)
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)
    told: dict[str, Any] = _finite(figures)
    return told


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON has no word for, by None."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""`align`: fine-tune all of a student's weights on the teacher's similarities, without straying far from its own."""

from __future__ import annotations

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from likemind.alignment.checkpoint import load_checkpoint, save_checkpoint
from likemind.alignment.known import Known
from likemind.alignment.precision import faster_precision
from likemind.alignment.recipe import Recipe, resolve_recipe
from likemind.alignment.retention import Validation, choose_shipped, measure
from likemind.alignment.trainee import Student, student_loss
from likemind.artifacts import Artifact, PathLike, read_run, write_json
from likemind.backbones.timm import load_backbone
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore
from likemind.images.collection import ImageCollection, open_images
from likemind.memory import keep_freed_memory
from likemind.progress import Metrics, log, track
from likemind.student.card import model_card
from likemind.student.model import AlignedModel, ModelConfig
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.alignment.batches import Batch
    from likemind.backbones.base import Backbone

_NOT_FINITE = "{what} is not finite at step {step}: lower --set learning_rate, or pass --set precision=float32"


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
    overwrite: bool = False,
) -> AlignedModel:
    """Align a student.

    Args:
        images: What the student learns from; no labels are used.
        backbone: The student, as for ``load_backbone``.
        teacher: Gives the labels on the fly. Needed for the ``mixture`` target and for packed batches.
        triplets: An output of ``likemind label``: its clusters group the images of packed batches, its similarities are
            the labels of independent ones.
        features: The *teacher's* backbone's features of the images; needed where the student is another backbone.
        validation: An evaluation folder whose validation objects decide what is shipped, and its temperature. Without
            it the backbone is shipped as it was trained.
        out: The student's directory.
        recipe: ``smoke``, ``small``, ``paper``, or a ``Recipe``.
        changes: Fields of the recipe to change.
        control: Learn from the *untransformed* teacher (UnAligNet), to tell human signal from mere distillation.
        seed: Of batches and of a random head.
        weights: As for ``load_backbone``.
        overwrite: Replace another run at ``out``.

    Returns:
        The student, in evaluation mode.

    Raises:
        LikemindError: What is given does not fit together, or the loss is not finite.

    Example:
        >>> align("photos/", "timm/test_vit", teacher="runs/teacher", out="runs/aligned")  # doctest: +SKIP
    """
    collection, model = open_images(images), load_backbone(backbone, weights=weights)
    plan = resolve_recipe(recipe, changes)
    data = EvaluationSet.load(validation) if validation is not None else None
    fitted = Teacher.load(teacher) if teacher is not None else None
    labels = read_run(triplets, verb="label") if triplets is not None else None
    _check(plan, fitted, labels, control=control)
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
    with Artifact(out, verb="align", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            known = Known(work.path, collection, model, fitted, triplets, features, control, seed)
            known.check()
            student = Student.start(model, known, plan, seed)
            _train(student, known, plan, seed, work.path)
            work.figures = _ship(student, known, plan, data, work.path, seed, _about_base(backbone, model, weights))
    return AlignedModel.from_pretrained(out, backbone=model.module if model.library == "module" else None)


def _check(recipe: Recipe, teacher: Teacher | None, labels: dict[str, Any] | None, *, control: bool) -> None:
    if teacher is None and (recipe.target == "mixture" or recipe.batching == "packed"):
        raise LikemindError(
            "the mixture target and packed batches need a teacher: pass --teacher, or --set target=paper "
            "--set batching=independent --triplets LABELS"
        )
    if labels is None and recipe.batching == "independent":
        raise LikemindError(
            "independent batches take their triplets from a file of labels: pass --triplets, an output of "
            "`likemind label`"
        )
    if labels is not None and recipe.batching == "independent" and labels["config"]["control"] != control:
        made, here = ("with", "without") if labels["config"]["control"] else ("without", "with")
        raise LikemindError(f"the labels were made {made} --control and this run is {here} it: make both alike")
    if recipe.target == "mixture" and recipe.batching == "independent":
        raise LikemindError(
            "the mixture target is computed within packed batches: pass --set batching=packed, or --set target=paper"
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


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate's share of its peak: a linear rise, then a cosine to zero."""
    rise = recipe.warmup * recipe.steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, recipe.steps - rise)))


def _train(student: Student, known: Known, recipe: Recipe, seed: int, folder: Path) -> None:
    from accelerate import Accelerator

    keep_freed_memory()
    precision = recipe.precision if recipe.precision != "auto" else faster_precision(student.about)
    accelerator = Accelerator(mixed_precision="no")  # it can be set once a process; so we cast ourselves
    half = precision == "bfloat16"
    peaks = {"backbone": recipe.learning_rate, "head": recipe.head_learning_rate}
    groups = [{"params": [value], "peak": peaks[name.split(".")[0]]} for name, value in student.learning.items()]
    optimizer = torch.optim.Adam(groups, lr=0.0)
    done = load_checkpoint(folder, student.learning, optimizer)
    metrics = Metrics(folder / "metrics.jsonl", keep=done)
    student.to(memory_format=torch.channels_last)
    prepared, optimizer = accelerator.prepare(student, optimizer)
    batches = _batches_ahead(known, recipe, seed, range(done, recipe.steps))
    for step, batch, pixels in track(batches, total=recipe.steps, done=done, what="align (steps)"):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, recipe)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=half):
            pooled = prepared(pixels.to(accelerator.device).contiguous(memory_format=torch.channels_last))
        parts = student_loss(student, pooled.float(), batch, known, recipe)
        if not math.isfinite(parts["loss"].item()):
            raise LikemindError(_NOT_FINITE.format(what="the loss", step=step))
        optimizer.zero_grad()
        accelerator.backward(parts["loss"])
        _pull(student, optimizer, recipe.pull)
        optimizer.step()
        metrics.write(step, **{name: value.item() for name, value in parts.items()})
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            if not all(bool(value.isfinite().all()) for value in student.learning.values()):
                raise LikemindError(_NOT_FINITE.format(what="a weight", step=step))
            save_checkpoint(folder, student.learning, optimizer, step + 1)


def _batches_ahead(known: Known, recipe: Recipe, seed: int, steps: range) -> Iterator[tuple[int, Batch, torch.Tensor]]:
    """Yield each step's batch and pixels, decoding the next one meanwhile."""

    def prepare(step: int) -> tuple[int, Batch, torch.Tensor]:
        batch = known.batch(recipe, seed, step)
        pixels = [known.backbone.preprocessing(known.images.read(int(position))) for position in batch.images]
        return step, batch, torch.stack(pixels)

    with ThreadPoolExecutor(max_workers=1) as worker:
        waiting = [worker.submit(prepare, step) for step in steps[:1]]
        for step in steps:
            ready = waiting.pop().result()
            if step + 1 in steps:
                waiting.append(worker.submit(prepare, step + 1))
            yield ready


@torch.no_grad()
def _pull(student: Student, optimizer: torch.optim.Optimizer, strength: float) -> None:
    """Pull every weight towards where it started, decoupled from Adam: θ ← θ − η λ (θ − θ₀).

    Done before Adam's step, whose moments do not look at θ: the two make θ ← θ − η (Adam + λ (θ − θ₀)) at the old θ, as
    in the published chain (``scale_by_adam``, ``decay_to_init``, rate).
    """
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, value in student.learning.items():
        value.sub_(rates[id(value)] * strength * (value - student.start_weights[name].to(value.device)))


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
    data: EvaluationSet | None,
    folder: Path,
    seed: int,
    about_base: dict[str, str | None],
) -> dict[str, Any]:
    student.cpu().eval()
    figures: dict[str, Any] = {"images": len(known.images), "steps": recipe.steps, "control": known.control}
    model = student.at(1.0)
    if data is not None:
        validation = Validation(data, seed)
        base, candidates = measure(student.at, recipe, validation)
        chosen = choose_shipped(base, candidates, recipe.max_loss)
        model = student.at(chosen.alpha)
        model.config = ModelConfig(shipped=chosen.shipped, alpha=chosen.alpha, beta=chosen.beta)
        rows = model.embeddings(validation.pooled(model))
        temperatures = {layer: validation.temperature(values) for layer, values in rows.items()}
        model.config = model.config.model_copy(update={"temperatures": temperatures})
        figures |= {"base": base.figures(), "shipped": chosen.figures()}
        figures["candidates"] = [candidate.figures() for candidate in candidates]
        figures["source"] = data.description.source
        log.info("shipped: %s at alpha %g, beta %g", chosen.shipped, chosen.alpha, chosen.beta)
    facts = {
        "base": student.about.name,
        **about_base,
        "teacher": _about_teacher(known.teacher),
        "recipe": recipe.model_dump(mode="json"),
        "target": recipe.target,
        "control": known.control,
    }
    licences = data.description.licences if data is not None else {}
    model.config = model.config.model_copy(update={"facts": {**facts, "licences": licences}})
    model.save_pretrained(folder, card=model_card(model, figures))
    write_json(
        folder / "retention.json", _finite({name: figures.get(name) for name in ("base", "shipped", "candidates")})
    )
    shutil.rmtree(folder / "base-features", ignore_errors=True)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    told: dict[str, Any] = _finite(figures)
    return told


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON has no word for, by None."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""`evaluate`: every model, at every layer it has, on the same objects, triplets and tasks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa

from likemind.artifacts import Artifact, PathLike, versions, write_atomic
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.datasets.shifts import ShiftSets
from likemind.errors import LikemindError
from likemind.evaluation.against_people import Calibration, Human, choices_table
from likemind.evaluation.context import Context, Scored, Subject
from likemind.evaluation.export import comparisons_csv, markdown, scores_csv
from likemind.evaluation.intervals import Intervals, compare, corrected
from likemind.evaluation.models import Model, open_models
from likemind.evaluation.on_labels import Generalisation, Structure
from likemind.evaluation.pooled import Pooled, missing_images, unreadable_images
from likemind.evaluation.results import Comparison, Results, Score
from likemind.evaluation.transfer import Transfer
from likemind.evaluation.under_shift import Robustness
from likemind.progress import track
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from likemind.evaluation.context import Part

RECIPE_VERSION = 2
"""Raised when the same inputs give other numbers."""

PARTS: dict[str, tuple[Callable[[Context], Part], ...]] = {
    "human": (Human,),
    "calibration": (Calibration,),
    "generalisation": (Generalisation,),
    "robustness": (Robustness, Transfer),
    "structure": (Structure,),
}
"""Suite → what scores it, in this order. A part is made once with the context, then asked about every layer."""

SUITES = tuple(PARTS)

TABLES = {"scores.csv": scores_csv, "comparisons.csv": comparisons_csv, "results.md": markdown}


def evaluate(
    models: Mapping[str, PathLike] | Sequence[PathLike],
    *,
    data: PathLike | EvaluationSet,
    out: PathLike,
    sets: PathLike | None = None,
    suite: str | Sequence[str] = "all",
    intervals: Intervals = "clustered",
    features: PathLike | None = None,
    allow_missing: bool = False,
    skip_bad: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Results:
    """Score models on held-out objects, and compare each with those before it.

    Args:
        models: Name → aligned model, teacher, backbone folder or timm name; or a list of these. Order matters: each is
            compared with all that stand before it.
        data: An evaluation folder.
        out: The results' directory: ``results.json``, the same as ``scores.csv``, ``comparisons.csv`` and
            ``results.md``, and ``embeddings.safetensors`` and ``choices.parquet``.
        sets: A folder of data sets, as for ``likemind.data``: robustness is tested on those that are there.
        suite: ``all``, or some of ``human``, ``calibration``, ``generalisation``, ``robustness``, ``structure``; as a
            list or with commas.
        intervals: Of scores on triplets. ``clustered`` takes into account that triplets share images and people;
            ``independent`` resamples triplets as if they did not, and is too narrow.
        features: A folder where the backbones' features are kept for other evaluations; by default they are not.
        allow_missing: Leave out items that have no image, and judgements about them, instead of stopping; they are
            named in the results' ``run``.
        skip_bad: The same for images that cannot be read.
        seed: Of few-shot tasks and of resampling.
        overwrite: Replace another run at ``out``.

    Returns:
        Scores and comparisons, with 95 % intervals.

    Raises:
        LikemindError: A model or the data is not as it must be.

    Example:
        >>> models = {"base": "runs/base", "aligned": "runs/aligned"}
        >>> evaluate(models, data="runs/data", out="runs/results")  # doctest: +SKIP
    """
    wanted = _suites(suite)
    if intervals not in get_args(Intervals):
        raise LikemindError(f"there are no {intervals!r} intervals: choose clustered or independent")
    opened, benchmark = open_models(models), EvaluationSet.load(data)
    config = {"suite": wanted, "seed": seed, "models": [model.name for model in opened], "intervals": intervals}
    config |= {"allow_missing": allow_missing, "skip_bad": skip_bad}
    inputs = {"data": benchmark.key, **{f"model/{model.name}": model.key for model in opened}}
    shown = None if sets is None or "robustness" not in wanted else ShiftSets(sets)
    inputs |= {} if shown is None else {"sets": shown.key}
    with Artifact(
        out, verb="evaluate", config=config, inputs=inputs, recipe_version=RECIPE_VERSION, overwrite=overwrite
    ) as work:
        if not work.done:
            run = {
                "dataset": benchmark.description.model_dump(mode="json"),
                "data": os.path.relpath(benchmark.path, work.out),
                "models": {model.name: model.describe() for model in opened},
                "suite": wanted,
                "intervals": intervals,
                "seed": seed,
                "versions": versions(),
            }
            shifts = list(benchmark.description.shifts) if "robustness" in wanted else []
            kept = work.path / "features" if features is None else Path(features)
            gone = missing_images(benchmark, shifts, allow=allow_missing)
            present = benchmark.without(gone)
            pooled = Pooled(present, kept, skip_bad=skip_bad)
            bad = unreadable_images(present, shifts, pooled, opened[0]) if skip_bad else []
            run["left_out"] = {"missing": gone, "unreadable": bad}
            context = Context(present.without(bad), seed, intervals, shown, kept)
            evaluation = _Evaluation(work.path, opened, context, wanted, pooled)
            results = evaluation.results(run, benchmark)
            results.save(work.path / "results.json")
            for name, told in TABLES.items():
                write_atomic(work.path / name, told(results).encode())
            shutil.rmtree(work.path / "features", ignore_errors=True)
            work.figures = {"scores": len(results.scores), "comparisons": len(results.comparisons)}
    return Results.load(out)


def _suites(suite: str | Sequence[str]) -> list[str]:
    names = suite.split(",") if isinstance(suite, str) else list(suite)
    names = list(SUITES) if names == ["all"] else names
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        raise LikemindError(
            f"there is no suite {unknown[0] if unknown else ''!r}: choose all, or some of {', '.join(SUITES)}"
        )
    return [name for name in SUITES if name in names]


class _Evaluation:
    """All models on one context."""

    def __init__(self, folder: Path, models: list[Model], context: Context, suites: list[str], pooled: Pooled) -> None:
        self.folder, self.models, self.context, self.suites, self.pooled = folder, models, context, suites, pooled
        self.data = context.data

    def results(self, run: dict[str, Any], whole: EvaluationSet) -> Results:
        """Score all models; leaves embeddings of the whole set and choices in the folder, zeros for items left out."""
        from safetensors.numpy import save

        parts = [make(self.context) for suite in self.suites for make in PARTS[suite]]
        scored: dict[tuple[str, str], dict[str, Scored]] = {}
        embeddings: dict[str, np.ndarray] = {}
        choices: list[pa.Table] = []
        for model in track(self.models, total=len(self.models), what="evaluate (models)"):
            for subject in self._subjects(model):
                embeddings[f"{model.name}@{subject.layer}"] = subject.rows
                found = (one for part in parts for one in part.score(subject))
                scored[model.name, subject.layer] = {one.metric: one for one in found}
                if {"human", "calibration"} & set(self.suites):
                    choices.append(choices_table(subject))
        place = {item.id: row for row, item in enumerate(whole.items)}
        kept = {name: np.zeros((len(place), rows.shape[1]), dtype=np.float32) for name, rows in embeddings.items()}
        for name, rows in embeddings.items():
            kept[name][[place[one] for one in self.context.ids]] = rows
        write_atomic(self.folder / "embeddings.safetensors", save(kept))
        if choices:
            write_table(self.folder / "choices.parquet", pa.concat_tables(choices))
        scores = [
            self._write(model, layer, one)
            for model in self.models
            for layer in model.layers
            for one in scored[model.name, layer].values()
        ]
        run = run | {"people": self.context.people}
        return Results(run=run, scores=scores, comparisons=list(self._comparisons(scored)))

    def _subjects(self, model: Model) -> Iterator[Subject]:
        shifts = self.data.description.shifts if "robustness" in self.suites else {}
        pooled = self.pooled.rows(model, self.context.ids)
        shifted = {shift: self._shifted(model, shift) for shift in shifts}
        raw = model.raw(pooled)
        for layer, rows in model.embeddings(pooled).items():
            others = {shift: values[layer] for shift, values in shifted.items()}
            yield Subject(self.context, model, layer, rows, raw.get(layer), others)

    def _shifted(self, model: Model, shift: str) -> dict[str, np.ndarray]:
        """Return each layer's rows for the held-out items under a shift, and zeros elsewhere."""
        ids = [item.id for item in self.data.select("heldout")]
        held, placed = self.context.rows_of(ids), {}
        for layer, rows in model.embeddings(self.pooled.rows(model, ids, shift)).items():
            placed[layer] = np.zeros((len(self.context.ids), rows.shape[1]), dtype=np.float32)
            placed[layer][held] = rows
        return placed

    def _write(self, model: Model, layer: str, scored: Scored) -> Score:
        low, high = scored.estimate.interval
        return Score(
            model=model.name,
            metric=f"{scored.metric}@{layer}",
            value=scored.estimate.value,
            low=low,
            high=high,
            n=scored.estimate.n,
            chance=scored.chance,
            ceiling=scored.ceiling,
            ceiling_low=scored.ceiling_low,
            higher_is_better=scored.higher_is_better,
            source=scored.source or self.data.description.source,
            similarity=scored.similarity or model.similarity[layer],
            temperature=scored.temperature,
            seed=self.context.seed,
        )

    def _comparisons(self, scored: dict[tuple[str, str], dict[str, Scored]]) -> Iterator[Comparison]:
        """Yield the paired differences; those of a layer from another model are one family for the correction."""
        for place, model in enumerate(self.models):
            for against in self.models[:place]:
                for layer in model.layers:
                    theirs = layer if layer in against.layers else against.layers[0]
                    if theirs != layer and len(against.layers) > 1:
                        continue
                    other = scored[against.name, theirs]
                    yield from corrected(
                        [
                            compare(
                                model.name,
                                against.name,
                                f"{metric}@{layer}",
                                ours.estimate,
                                other[metric].estimate,
                                higher_is_better=ours.higher_is_better,
                            )
                            for metric, ours in scored[model.name, layer].items()
                            if metric in other
                        ]
                    )

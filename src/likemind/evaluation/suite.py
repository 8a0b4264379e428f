"""`evaluate`: every model, at every layer it has, on the same objects, triplets and tasks."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from likemind.artifacts import Artifact, PathLike, versions, write_atomic
from likemind.choice import ODD_OF_PAIR, choose, fit_temperature, log_probabilities, pair_similarities
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.episodes import chance, draw_episodes
from likemind.errors import LikemindError
from likemind.evaluation.calibration import expected_calibration_error, negative_log_likelihood
from likemind.evaluation.fewshot import fewshot
from likemind.evaluation.intervals import Estimate, compare, mean_estimate
from likemind.evaluation.models import Model, open_models
from likemind.evaluation.odd_one_out import TimedTriplets, Trials, agreement, by_level, choice_entropy, similarities
from likemind.evaluation.results import Comparison, Results, Score
from likemind.evaluation.rsa import averaged, rsa
from likemind.evaluation.structure import grouping
from likemind.features.embed import embed
from likemind.progress import track
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SUITES = ("human", "calibration", "generalisation", "shift", "structure")
SHOTS = (1, 5)


def evaluate(
    models: Mapping[str, PathLike] | Sequence[PathLike],
    *,
    data: PathLike | EvaluationSet,
    out: PathLike,
    suite: str | Sequence[str] = "all",
    seed: int = 0,
    overwrite: bool = False,
) -> Results:
    """Score models on held-out objects, and compare each with those before it.

    Args:
        models: Name → aligned model, teacher, backbone folder or timm name; or a list of these. Order matters: each is
            compared with all that stand before it.
        data: An evaluation folder.
        out: The results' directory: ``results.json``, ``embeddings.safetensors``, ``choices.parquet``.
        suite: ``all``, or some of ``human``, ``calibration``, ``generalisation``, ``shift``, ``structure``; as a list
            or with commas.
        seed: Of few-shot tasks and of resampling.
        overwrite: Replace another run at ``out``.

    Returns:
        Scores and comparisons, with 95 % bootstrap intervals.

    Raises:
        LikemindError: A model or the data is not as it must be.

    Example:
        >>> models = {"base": "runs/base", "aligned": "runs/aligned"}
        >>> evaluate(models, data="runs/data", out="runs/results")  # doctest: +SKIP
    """
    wanted = _suites(suite)
    opened, benchmark = open_models(models), EvaluationSet.load(data)
    config = {"suite": wanted, "seed": seed, "models": [model.name for model in opened]}
    inputs = {"data": benchmark.key, **{f"model/{model.name}": model.key for model in opened}}
    with Artifact(out, verb="evaluate", config=config, inputs=inputs, overwrite=overwrite) as work:
        if not work.done:
            run = {
                "dataset": benchmark.description.model_dump(mode="json"),
                "data": os.path.relpath(benchmark.path, work.out),
                "models": {model.name: model.describe() for model in opened},
                "suite": wanted,
                "seed": seed,
                "versions": versions(),
            }
            results = _Evaluation(work.path, opened, benchmark, wanted, seed).results(run)
            results.save(work.path / "results.json")
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


@dataclass(frozen=True, eq=False)
class _Scored:
    """One number about one layer of one model, before it is written down."""

    metric: str
    estimate: Estimate
    chance: float | None = None
    ceiling: float | None = None
    higher_is_better: bool = True
    source: str | None = None
    temperature: float | None = None


class _Evaluation:
    """Everything that all models share: items, trials, tasks, resampling."""

    def __init__(self, folder: Path, models: list[Model], data: EvaluationSet, suites: list[str], seed: int) -> None:
        self.folder, self.models, self.data, self.suites, self.seed = folder, models, data, suites, seed
        self.ids = [item.id for item in data.items]
        self.name = data.description.name
        self.choices: list[pa.Table] = []

    @cached_property
    def heldout(self) -> Trials:
        return Trials.of(self.data.judgements("heldout"), self.ids, f"the items of {self.data.path}")

    @cached_property
    def validation(self) -> Trials:
        return Trials.of(self.data.judgements("validation"), self.ids, f"the items of {self.data.path}")

    @cached_property
    def timed(self) -> dict[str, TimedTriplets]:
        level = self.heldout.level
        names = sorted({name for name in level.tolist() if name})
        masks = {"": None} | {f".{name}": level == name for name in names}
        return {name: TimedTriplets(self.heldout, self.seed, mask) for name, mask in masks.items()}

    @cached_property
    def tasks(self) -> dict[int, Any]:
        few = [item.category for item in self.data.select(fewshot="heldout")]
        return {k: draw_episodes(few, k, self.seed) for k in SHOTS} if few else {}

    @cached_property
    def few_rows(self) -> np.ndarray:
        return self._rows([item.id for item in self.data.select(fewshot="heldout")])

    def _rows(self, ids: list[str]) -> np.ndarray:
        place = {name: row for row, name in enumerate(self.ids)}
        return np.array([place[name] for name in ids], dtype=int)

    def results(self, run: dict[str, Any]) -> Results:
        """Score all models; leaves embeddings and choices in the folder."""
        from safetensors.numpy import save

        scored: dict[tuple[str, str], dict[str, _Scored]] = {}
        embeddings: dict[str, np.ndarray] = {}
        for model in track(self.models, total=len(self.models), what="evaluate (models)"):
            shifted = {shift: self._embed(model, shift) for shift in self._shifts}
            for layer, rows in self._embed(model, None).items():
                embeddings[f"{model.name}@{layer}"] = rows
                others = {shift: values[layer] for shift, values in shifted.items()}
                scored[model.name, layer] = {s.metric: s for s in self._score(model, layer, rows, others)}
        write_atomic(
            self.folder / "embeddings.safetensors", save({k: np.ascontiguousarray(v) for k, v in embeddings.items()})
        )
        if self.choices:
            write_table(self.folder / "choices.parquet", pa.concat_tables(self.choices))
        shutil.rmtree(self.folder / "features", ignore_errors=True)
        scores = [
            self._write(model, layer, s)
            for model in self.models
            for layer in model.layers
            for s in scored[model.name, layer].values()
        ]
        return Results(run=run, scores=scores, comparisons=list(self._comparisons(scored)))

    @property
    def _shifts(self) -> list[str]:
        return list(self.data.description.shifts) if "shift" in self.suites else []

    def _embed(self, model: Model, shift: str | None) -> dict[str, np.ndarray]:
        """Return each layer's rows for all items; under a shift, for the held-out ones alone, and zeros elsewhere."""
        ids = self.ids if shift is None else [item.id for item in self.data.select("heldout")]
        folder = self.folder / "features" / f"{model.backbone.fingerprint[:16]}-{shift or 'images'}"
        folder.parent.mkdir(exist_ok=True)
        pooled = np.asarray(embed(self.data.images(shift).select(ids), model.backbone, out=folder).features)
        if shift is None:
            return model.embeddings(pooled)
        placed = {}
        for layer, rows in model.embeddings(pooled).items():
            placed[layer] = np.zeros((len(self.ids), rows.shape[1]), dtype=np.float32)
            placed[layer][self._rows(ids)] = rows
        return placed

    def _score(self, model: Model, layer: str, rows: np.ndarray, shifted: dict[str, np.ndarray]) -> Iterator[_Scored]:
        if "human" in self.suites or "calibration" in self.suites:
            yield from self._human(model, layer, rows)
        if "human" in self.suites:
            yield from self._recorded(rows)
        if "generalisation" in self.suites:
            yield from self._fewshot(self.data.description.tasks or f"{self.name}/heldout", rows)
        if "structure" in self.suites:
            held = [item for item in self.data.select("heldout") if item.group]
            groups = [item.group for item in held]
            if len(set(groups)) > 1:
                value = grouping(rows[self._rows([item.id for item in held])], groups, self.seed)
                yield _Scored(f"{self.name}/heldout/grouping.ami", value, chance=0.0, ceiling=1.0, source="labels")
        for shift, others in shifted.items():
            yield from self._agreement(shift, similarities(others, self.heldout))
            yield from self._fewshot(f"{self.name}/{shift}", others)

    def _recorded(self, rows: np.ndarray) -> Iterator[_Scored]:
        """Real answers and ratings about any of the items: few, so their intervals are wide."""
        for name in self.data.description.answers:
            judgements = self.data.answers(name)
            if judgements.choice is not None and len(judgements):
                embedding = torch.from_numpy(averaged(rows, self.data, judgements.items)).double()
                cosines = pair_similarities(embedding, torch.from_numpy(judgements.indices).long())
                odd = np.array([*ODD_OF_PAIR, -1])[choose(cosines).numpy()]
                right = mean_estimate((odd == judgements.choice).astype(float), self.seed)
                yield _Scored(f"{name}/inside/accuracy", right, chance=1 / 3, source=judgements.source)
        for name in self.data.description.ratings:
            ratings = self.data.ratings(name)
            if len(ratings) > 2:
                value = rsa(averaged(rows, self.data, ratings.items), ratings, self.seed)
                yield _Scored(f"{name}/inside/rsa.spearman", value, chance=0.0, source=ratings.source)

    def _agreement(self, split: str, cosines: torch.Tensor) -> Iterator[_Scored]:
        trials = self.heldout
        ceilings = by_level(trials.ceiling, trials.level, self.seed)
        for level, value in by_level(agreement(cosines, trials.people), trials.level, self.seed).items():
            yield _Scored(f"{self.name}/{split}/agreement.{level}", value, chance=1 / 3, ceiling=ceilings[level].value)

    def _human(self, model: Model, layer: str, rows: np.ndarray) -> Iterator[_Scored]:
        cosines, people = similarities(rows, self.heldout), self.heldout.people
        tau = fit_temperature(similarities(rows, self.validation), torch.from_numpy(self.validation.people))
        after = log_probabilities(cosines, tau)
        if "human" in self.suites:
            yield from self._agreement("heldout", cosines)
            nats = choice_entropy(after)
            for level, timed in self.timed.items():
                if timed.n:
                    metric = f"{self.name}/heldout/entropy_rt{level}.spearman"
                    yield _Scored(metric, timed.correlate(nats), chance=0.0, temperature=tau)
        for when, log_p, temperature in (("before", log_probabilities(cosines), 1.0), ("after", after, tau)):
            if "calibration" in self.suites:
                likelihood = negative_log_likelihood(log_p.numpy(), people, self.seed)
                error = expected_calibration_error(log_p.exp().numpy(), people, self.seed)
                best = float(-(people * np.log(np.maximum(people, 1e-12))).sum(axis=1).mean())
                metric = f"{self.name}/heldout/ece.{when}"
                yield _Scored(metric, error, None, 0.0, higher_is_better=False, temperature=temperature)
                yield _Scored(
                    f"{self.name}/heldout/nll.{when}",
                    likelihood,
                    float(np.log(3)),
                    best,
                    higher_is_better=False,
                    temperature=temperature,
                )
        self.choices.append(self._choices(model.name, layer, cosines, after))

    def _choices(self, model: str, layer: str, cosines: torch.Tensor, after: torch.Tensor) -> pa.Table:
        trials, n = self.heldout, len(self.heldout.triplets)
        ids = np.array(self.ids, dtype=object)[trials.triplets]
        before = log_probabilities(cosines).exp().numpy()
        columns: dict[str, Any] = {"model": [model] * n, "layer": [layer] * n, "triplet": np.arange(n, dtype=np.int32)}
        columns |= {f"item_{k}": ids[:, k].tolist() for k in range(3)}
        columns["level"] = [name or None for name in trials.level.tolist()]
        for name, values in (("people", trials.people), ("before", before), ("after", after.exp().numpy())):
            columns |= {f"{name}_{k}": values[:, k].astype(np.float32) for k in range(3)}
        columns |= {
            "choice": choose(cosines).numpy().astype(np.int8),
            "response_time": trials.mean_time().astype(np.float32),
        }
        return pa.table(columns)

    def _fewshot(self, prefix: str, rows: np.ndarray) -> Iterator[_Scored]:
        for k, tasks in self.tasks.items():
            guess = chance(tasks)
            value = fewshot(rows[self.few_rows], tasks, self.seed)
            yield _Scored(f"{prefix}/fewshot.k{k}", value, guess, 1.0, source="labels")
            value = fewshot(rows[self.few_rows], tasks, self.seed, method="centroid")
            yield _Scored(f"{prefix}/centroid.k{k}", value, guess, 1.0, source="labels")

    def _write(self, model: Model, layer: str, scored: _Scored) -> Score:
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
            higher_is_better=scored.higher_is_better,
            source=scored.source or self.data.description.source,
            similarity=model.similarity[layer],
            temperature=scored.temperature,
            seed=self.seed,
        )

    def _comparisons(self, scored: dict[tuple[str, str], dict[str, _Scored]]) -> Iterator[Comparison]:
        for place, model in enumerate(self.models):
            for against in self.models[:place]:
                for layer in model.layers:
                    theirs = layer if layer in against.layers else against.layers[0]
                    if theirs != layer and len(against.layers) > 1:
                        continue
                    for metric, ours in scored[model.name, layer].items():
                        yield compare(
                            model.name,
                            against.name,
                            f"{metric}@{layer}",
                            ours.estimate,
                            scored[against.name, theirs][metric].estimate,
                            higher_is_better=ours.higher_is_better,
                        )

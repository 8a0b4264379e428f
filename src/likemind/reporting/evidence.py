"""What a results directory holds, read once and laid out for the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from likemind.artifacts import PathLike, read_run
from likemind.datasets.evaluation_set import EvaluationSet
from likemind.errors import LikemindError
from likemind.evaluation.results import Results
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.evaluation_set import Item
    from likemind.evaluation.results import Score

HELDOUT: Final = "heldout"
_PREFERRED_LAYERS = ("shipped", "teacher", "head", "backbone")


class Place(NamedTuple):
    """A model at one of its layers: a row of every table and a panel of every figure."""

    model: str
    layer: str

    @property
    def label(self) -> str:
        """How tables and figures name it."""
        return f"{self.model} · {self.layer}"


class MetricId(NamedTuple):
    """The parts of ``dataset/split/stem@layer``."""

    dataset: str
    split: str
    stem: str
    layer: str

    @classmethod
    def parse(cls, metric: str) -> MetricId:
        """Take an id apart; parts that it lacks are empty."""
        rest, _, layer = metric.rpartition("@") if "@" in metric else (metric, "", "")
        dataset, split, stem = [*rest.rsplit("/", 2), "", ""][:3]  # from the right: a data set's name may hold anything
        return cls(dataset, split, stem, layer)

    @property
    def prefix(self) -> str:
        """``dataset/split``."""
        return f"{self.dataset}/{self.split}"

    @property
    def family(self) -> str:
        """First part of the stem: ``agreement.all`` → agreement."""
        return self.stem.partition(".")[0]


@dataclass(frozen=True, eq=False)
class Choices:
    """One model's choices at one layer over the held-out triplets, in the order of the triplets' numbers.

    Attributes:
        triplet: (n,) numbers.
        items: (n, 3) ids.
        level: (n,) names, "" where a triplet has none.
        people: (n, 3) the observers' distribution over the pairs 01, 02, 12.
        before: (n, 3) the model's probabilities by pair at temperature 1.
        after: (n, 3) those at the fitted temperature.
        choice: (n,) the model's pair, -1 for a tie.
        response_time: (n,) mean seconds, NaN where there is none.
    """

    triplet: np.ndarray
    items: np.ndarray
    level: np.ndarray
    people: np.ndarray
    before: np.ndarray
    after: np.ndarray
    choice: np.ndarray
    response_time: np.ndarray

    def __len__(self) -> int:
        return len(self.triplet)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that the page shows.

    Attributes:
        path: The results directory.
        key: Its key.
        results: Scores and comparisons.
        data: The evaluation set.
        embeddings: Place → (items, d) float32, L2-normalised, rows in the order of ``data.items``.
        choices: Place → choices over the held-out triplets.
    """

    path: Path
    key: str
    results: Results
    data: EvaluationSet
    embeddings: dict[Place, np.ndarray]
    choices: dict[Place, Choices]

    @property
    def run(self) -> dict[str, Any]:
        """What ``evaluate`` told of itself."""
        return self.results.run

    @property
    def dataset(self) -> dict[str, Any]:
        """Name, source, about, licences and showcase of the data."""
        return {**self.data.description.model_dump(mode="json"), **self.run.get("dataset", {})}

    @cached_property
    def places(self) -> list[Place]:
        """Every model and layer with a score, models and layers in the order of the run."""
        scored = [Place(score.model, score.layer) for score in self.results.scores]
        named = [
            Place(model, layer)
            for model, about in self.run.get("models", {}).items()
            for layer in about.get("layers", [])
        ]
        kept = [place for place in named if place in set(scored)]
        return list(dict.fromkeys([*kept, *scored]))

    @cached_property
    def models(self) -> list[str]:
        """Names of the models that were scored."""
        return list(dict.fromkeys(place.model for place in self.places))

    def main_place(self, model: str) -> Place:
        """Return the layer of a model that a user meets first."""
        layers = [place.layer for place in self.places if place.model == model]
        return Place(model, next((layer for layer in _PREFERRED_LAYERS if layer in layers), layers[0]))

    @cached_property
    def before(self) -> Place:
        """The base model, or the first one."""
        return self.main_place("base" if "base" in self.models else self.models[0])

    @cached_property
    def after(self) -> Place | None:
        """The aligned model, or the last one; None where there is one model alone."""
        others = [model for model in self.models if model != self.before.model]
        if not others:
            return None
        return self.main_place("aligned" if "aligned" in others else others[-1])

    @property
    def pair(self) -> list[Place]:
        """``before`` and, where there is one, ``after``."""
        return [self.before] if self.after is None else [self.before, self.after]

    @property
    def name(self) -> str:
        """First part of the ids of the run's own scores."""
        return str(self.dataset["name"])

    @property
    def tasks(self) -> str:
        """First parts of the few-shot ids on classes that nobody was trained on, such as ``caltech101/unseen``."""
        return str(self.dataset.get("tasks") or f"{self.name}/{HELDOUT}")

    @cached_property
    def recorded(self) -> list[tuple[str, str]]:
        """Recorded answers and ratings that were scored, answers first: pairs of ``dataset/split`` and stem."""
        named = [(f"{name}/inside", "accuracy") for name in self.data.description.answers]
        named += [(f"{name}/inside", "rsa.spearman") for name in self.data.description.ratings]
        scored = {(prefix, stem) for _, _, prefix, stem in self._scores}
        return [one for one in named if one in scored]

    def prefix(self, stem: str, split: str = HELDOUT) -> str:
        """Return the first parts of a metric's id on the run's own data, or on the classes that serve for few-shot."""
        few = stem.partition(".")[0] in ("fewshot", "centroid")
        return self.tasks if few and split == HELDOUT else f"{self.name}/{split}"

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str, str], Score]:
        found: dict[tuple[str, str, str, str], Score] = {}
        for score in self.results.scores:
            metric = MetricId.parse(score.metric)
            found[score.model, metric.layer, metric.prefix, metric.stem] = score
        return found

    def score(self, place: Place, stem: str, split: str = HELDOUT) -> Score | None:
        """Return a score on the run's own data set or its few-shot classes, or None."""
        return self.score_at(place, self.prefix(stem, split), stem)

    def score_at(self, place: Place, prefix: str, stem: str) -> Score | None:
        """Return the score with this id, or None."""
        return self._scores.get((place.model, place.layer, prefix, stem))

    def splits(self, stem: str) -> list[str]:
        """Return the splits and shifts of the run's own data on which ``stem`` was scored, in the order of scores."""
        found = [MetricId.parse(score.metric) for score in self.results.scores]
        return list(dict.fromkeys(one.split for one in found if (one.dataset, one.stem) == (self.name, stem)))

    @cached_property
    def sources(self) -> list[str]:
        """Where the answers behind the scores come from, in the order of the scores."""
        return list(dict.fromkeys(score.source for score in self.results.scores))

    @cached_property
    def item_of(self) -> dict[str, Item]:
        """Id → item."""
        return {item.id: item for item in self.data.items}

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Id → row of the embeddings."""
        return {item.id: row for row, item in enumerate(self.data.items)}


def load_evidence(folder: PathLike) -> Evidence:
    """Read a results directory and open the data that it names.

    Raises:
        LikemindError: The directory is not an output of ``evaluate``, or its data have gone.
    """
    path = Path(folder)
    key = str(read_run(path, verb="evaluate")["key"])
    results = Results.load(path)
    if not results.scores:
        raise LikemindError(f"{path} holds no scores: evaluate at least one model")
    data = _open_data(path, results)
    return Evidence(path, key, results, data, _embeddings(path, len(data.items)), _choices(path, data))


def _open_data(path: Path, results: Results) -> EvaluationSet:
    place = results.run.get("data")
    if not place:
        raise LikemindError(f"{path / 'results.json'} does not name its data: evaluate again")
    data = Path(os.path.normpath(path / place))
    if not (data / "dataset.json").exists():
        raise LikemindError(
            f"{data}, on which {path} was evaluated, is no longer an evaluation folder: put it back, or evaluate again"
        )
    return EvaluationSet.load(data)


def _embeddings(path: Path, items: int) -> dict[Place, np.ndarray]:
    from safetensors.numpy import load_file

    file = path / "embeddings.safetensors"
    if not file.exists():
        raise LikemindError(f"{file} does not exist: evaluate again with --overwrite")
    found = {}
    for name, rows in load_file(file).items():
        if len(rows) != items:
            raise LikemindError(f"{path} holds {len(rows)} embeddings of {name} for {items} items: evaluate again")
        model, _, layer = name.rpartition("@")
        found[Place(model, layer)] = np.asarray(rows, dtype=np.float32)
    return found


def _choices(path: Path, data: EvaluationSet) -> dict[Place, Choices]:
    if not (path / "choices.parquet").exists():
        return {}
    table = read_table(path / "choices.parquet")
    columns = {name: np.array(table.column(name).to_pylist(), dtype=object) for name in ("model", "layer", "level")}
    items = np.stack([np.array(table.column(f"item_{k}").to_pylist(), dtype=object) for k in range(3)], axis=1)
    strays = set(items.ravel()) - {item.id for item in data.items}
    if strays:
        raise LikemindError(
            f"{path} judges {min(strays)!r}, which {data.path} lacks: the data have changed, evaluate again"
        )
    numbers = {name: _three(table, name) for name in ("people", "before", "after")}
    triplet, choice = (table.column(name).to_numpy() for name in ("triplet", "choice"))
    seconds = np.array(
        [np.nan if value is None else value for value in table.column("response_time").to_pylist()], dtype=float
    )
    level = np.array([value or "" for value in columns["level"]], dtype=object)
    found = {}
    for place in dict.fromkeys(zip(columns["model"], columns["layer"], strict=True)):
        rows = np.flatnonzero((columns["model"] == place[0]) & (columns["layer"] == place[1]))
        rows = rows[np.argsort(triplet[rows], kind="stable")]
        three = {name: value[rows] for name, value in numbers.items()}
        found[Place(*place)] = Choices(
            triplet[rows], items[rows], level[rows], **three, choice=choice[rows], response_time=seconds[rows]
        )
    return found


def _three(table: Any, name: str) -> np.ndarray:
    return np.stack([table.column(f"{name}_{k}").to_numpy() for k in range(3)], axis=1)


def groups_of(items: Sequence[Item], most: int) -> list[str]:
    """Return the groups that have a name, the largest first; of more than ``most``, the largest ``most`` alone."""
    names, counts = np.unique([item.group for item in items if item.group], return_counts=True)
    order = np.lexsort((names, -counts))
    return [str(names[row]) for row in order[:most]]

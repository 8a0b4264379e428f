"""A small but complete results directory, in the format that ``evaluate`` writes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.numpy import save_file

from likemind.alignment.recipe import Recipe
from likemind.artifacts import Artifact
from likemind.choice import PAIRS
from likemind.datasets.evaluation_set import Description, write_description
from likemind.evaluation.results import Comparison, Results, Score
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>"
CREDIT = "OpenMoji, CC BY-SA 4.0"
ITEMS, TRIPLETS = 24, 60
LAYERS = {
    "base": ["backbone"],
    "teacher": ["teacher"],
    "control": ["backbone", "head", "shipped"],
    "aligned": ["backbone", "head", "shipped"],
}
_LEVELS = ("between_class", "class_border", "within_class")


@dataclass
class World:
    """What a test may change before the results are written."""

    path: Path
    models: list[str] = field(default_factory=lambda: list(LAYERS))
    source: str = "simulated"
    showcase: list[str] = field(default_factory=lambda: ["item-00"])
    seconds: bool = True
    verdict: str = "better"
    corrected: str | None = None
    group: str = "animals"
    groups: int = 2
    people: bool = False
    few: float | None = 0.6
    choices: bool = True
    only: str = ""

    def small(self, *models: str) -> World:
        """Keep the agreement of some models alone, so that a page is made quickly."""
        self.models, self.choices, self.only = list(models), False, "agreement.all"
        return self

    def write(self, name: str = "results") -> Path:
        """Write the data and the results; return the results directory."""
        data = self.path / f"{name}-data"
        self._data(data)
        out = self.path / name
        run = {
            "dataset": {key: value for key, value in self.description.model_dump().items() if key in _TOLD},
            "data": str(data),
            "models": {
                model: {"path": f"runs/{model}", "layers": LAYERS[model], "backbone": "timm/tiny", **self._told(model)}
                for model in self.models
            },
            "seed": 7,
            "versions": {"numpy": "2.0"},
        }
        with Artifact(out, verb="evaluate", config=run, inputs={}) as work:
            scores = [score for model in self.models for layer in LAYERS[model] for score in self._scores(model, layer)]
            Results(run=run, scores=scores, comparisons=self._comparisons(scores)).save(work.path / "results.json")
            save_file(self._embeddings(), work.path / "embeddings.safetensors")
            if self.choices:
                write_table(work.path / "choices.parquet", self._choices())
        return out

    def labels(self, name: str = "labels", strangers: int = 4) -> Path:
        """Write clusters of five items and of ``strangers`` that the data do not have; return the directory."""
        ids = self.ids + [f"stranger-{k}" for k in range(strangers)]
        with Artifact(self.path / name, verb="label", config={"n": len(ids)}, inputs={}) as work:
            clusters = pa.array([k // 5 for k in range(len(ids))], pa.int32())
            write_table(work.path / "clusters.parquet", pa.table({"id": ids, "cluster": clusters}))
        return self.path / name

    def _told(self, model: str) -> dict[str, Any]:
        """How a student was made, and what retention measured of it."""
        if model not in ("control", "aligned"):
            return {}
        recipe = Recipe(steps=90).model_dump(mode="json")
        base = {"shipped": "backbone", "alpha": 0.0, "beta": 0.0, "agreement": 0.45, "fewshot": self.few}
        candidates = [
            {"shipped": kind, "alpha": alpha, "beta": beta, "agreement": 0.46 + 0.02 * alpha * beta, "fewshot": few}
            for alpha in (1.0, 0.5)
            for kind, beta in (("backbone", 0.0), ("mix", 0.5), ("head", 1.0))
            for few in [None if self.few is None else self.few - 0.02 * alpha * beta]
        ]
        made = {"verb": "align", "key": "ab" * 32, "config": {"recipe": recipe, "control": False, "seed": 3}}
        return {"made": made, "retention": {"base": base, "shipped": candidates[1], "candidates": candidates}}

    @property
    def ids(self) -> list[str]:
        return [f"item-{k:02d}" for k in range(ITEMS)]

    @property
    def description(self) -> Description:
        return Description(
            name="toys",
            source=self.source,
            about="Squares of many colours.",
            images="images.parquet",
            judgements={},
            licences={"images": CREDIT, "weights": "Apache-2.0"},
            showcase=self.showcase,
            tasks="strange/unseen" if self.people else "",
            answers={"asked": "asked.parquet"} if self.people else {},
            ratings={"rated": "rated.parquet"} if self.people else {},
        )

    def _data(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        write_table(
            folder / "images.parquet",
            pa.table({"id": self.ids, "image": [_square(rng.integers(0, 255, 3)) for _ in self.ids]}),
        )
        columns = {
            "id": self.ids,
            "name": [HOSTILE, *(f"toy {k}" for k in range(1, ITEMS))],
            "category": [f"kind {k % 6}" for k in range(ITEMS)],
            "group": [
                self.group if k % 2 else ("tools & <b>", *"abcdefgh")[k // 2 % (self.groups - 1)] for k in range(ITEMS)
            ],
            "split": ["heldout" if k < 18 else "train" for k in range(ITEMS)],
            "fewshot": [""] * ITEMS,
        }
        write_table(folder / "items.parquet", pa.table(columns))
        write_description(folder, self.description)
        if self.people:
            self._ratings().to_parquet(folder / "rated.parquet")

    def _ratings(self) -> RatingMatrix:
        """Ratings of six categories and one item, and of something that the data do not have."""
        names = [*(f"kind {k}" for k in range(6)), "item-00", "unicorn"]
        places = np.random.default_rng(3).normal(size=(len(names), 3))
        return RatingMatrix(names, np.linalg.norm(places[:, None] - places, axis=2), "human")

    def _places(self) -> list[tuple[str, str]]:
        return [(model, layer) for model in self.models for layer in LAYERS[model]]

    def _embeddings(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        found = {}
        for model, layer in self._places():
            rows = rng.normal(size=(ITEMS, 8)).astype(np.float32)
            found[f"{model}@{layer}"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found

    def triplets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return indices (n, 3) and the observers' distributions (n, 3)."""
        rng = np.random.default_rng(2)
        indices = np.stack([rng.choice(18, 3, replace=False) for _ in range(TRIPLETS)])
        return indices, rng.dirichlet(np.ones(3), TRIPLETS)

    def _choices(self) -> pa.Table:
        indices, people = self.triplets()
        tables = []
        for name, rows in self._embeddings().items():
            model, _, layer = name.rpartition("@")
            similar = np.stack([(rows[indices[:, a]] * rows[indices[:, b]]).sum(1) for a, b in PAIRS], axis=1)
            columns: dict[str, Any] = {
                "model": [model] * TRIPLETS,
                "layer": [layer] * TRIPLETS,
                "triplet": np.arange(TRIPLETS),
            }
            columns |= {f"item_{k}": [self.ids[row] for row in indices[:, k]] for k in range(3)}
            columns["level"] = [(*_LEVELS, None)[k % 4] for k in range(TRIPLETS)]
            for what, values in {"people": people, "before": _softmax(similar * 9), "after": _softmax(similar)}.items():
                columns |= {f"{what}_{k}": values[:, k] for k in range(3)}
            choice = similar.argmax(axis=1)
            choice[0] = -1
            seconds = [None if k % 9 == 0 or not self.seconds else 1.0 + k / 50 for k in range(TRIPLETS)]
            columns |= {"choice": choice, "response_time": pa.array(seconds, pa.float64())}
            tables.append(pa.table(columns))
        return pa.concat_tables(tables)

    def _scores(self, model: str, layer: str) -> list[Score]:
        shift = 0.01 * sum(map(ord, model + layer)) % 0.1
        stems = {f"heldout/agreement.{level}": 0.45 for level in ("all", *_LEVELS)}
        stems |= {f"outline/agreement.{level}": 0.41 for level in ("all", *_LEVELS)}
        stems |= {"heldout/entropy_rt.spearman": 0.2, "heldout/grouping.ami": 0.3, "heldout/nll.after": 1.02}
        stems |= {"heldout/ece.before": 0.2, "heldout/ece.after": 0.03}
        stems |= {f"{split}/fewshot.k{shots}": 0.6 for split in ("heldout", "outline") for shots in (1, 5)}
        named = {f"toys/{stem}": value for stem, value in stems.items()}
        if self.people:
            named = {
                stem.replace("toys/heldout", "strange/unseen") if "fewshot" in stem else stem: value
                for stem, value in named.items()
                if "outline" not in stem and "_rt" not in stem
            }
            named |= {"asked/inside/accuracy": 0.5, "rated/inside/rsa.spearman": 0.3}
        return [
            self._score(model, f"{stem}@{layer}", value + shift) for stem, value in named.items() if self.only in stem
        ]

    def _score(self, model: str, metric: str, value: float) -> Score:
        agreement, fewshot, people = "agreement" in metric, "fewshot" in metric, "/inside/" in metric
        return Score(
            model=model,
            metric=metric,
            value=value,
            low=value - 0.02,
            high=value + 0.02,
            n=20 if fewshot else TRIPLETS,
            chance=1 / 3 if agreement else 0.1 if fewshot else None,
            ceiling=0.671 if agreement else None,
            higher_is_better="ece" not in metric and "nll" not in metric,
            source="labels" if fewshot else "human" if people else self.source,
            similarity="cosine",
            temperature=0.25,
        )

    def _comparisons(self, scores: list[Score]) -> list[Comparison]:
        found = []
        for score in scores:
            for against in [model for model in self.models if model != "aligned" and score.model == "aligned"]:
                few = "fewshot" in score.metric
                found.append(
                    Comparison(
                        model="aligned",
                        against=against,
                        metric=score.metric,
                        difference=0.004 if few else 0.029,
                        low=-0.012 if few else 0.021,
                        high=0.02 if few else 0.037,
                        n=score.n,
                        verdict="no difference seen" if few else self.verdict,
                        verdict_corrected="no difference seen" if few and self.corrected else self.corrected,
                    )
                )
        return found


_TOLD = ("name", "source", "about", "licences", "showcase")


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _square(colour: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (32, 24), tuple(int(part) for part in colour)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def page(world: World) -> Callable[..., str]:
    """Write a world's results and its page; return the page's text."""
    from likemind.reporting.report import report

    def make(name: str = "results", **options: Any) -> str:
        return report(world.write(name), out=world.path / f"{name}.html", **options).read_text()

    return make


@pytest.fixture(scope="session")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the untouched world, with pictures and clusters."""
    return _page(World(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="session")
def people_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a world of a model of people, with some answers and ratings by people, and few-shot elsewhere."""
    world = World(tmp_path_factory.mktemp("people"), source="human_model", people=True, seconds=False)
    world.models = ["base", "control", "aligned"]
    return _page(world)


def _page(world: World) -> str:
    from likemind.reporting.report import report

    return report(world.write(), out=world.path / "page.html", labels=world.labels()).read_text()

"""Scores and paired comparisons: the contract's ``results.json``, schema 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likemind.artifacts import PathLike, read_json, write_json
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Iterator

Verdict = Literal["better", "no difference seen", "worse"]


class Score(BaseModel):
    """One number about one model at one layer, with all that is needed to read it.

    Attributes:
        model: Such as ``base``, ``teacher``, ``control``, ``aligned``.
        metric: ``dataset/split/metric[.level][.kK]@layer``.
        value: The number; ``low`` and ``high`` bound its 95 % interval.
        n: Number of triplets, episodes or items behind it.
        chance: What a model that knows nothing gets.
        ceiling: What a model that knows all about people would get; ``ceiling_low`` a lower bound of it, where the
            ceiling is a range.
        higher_is_better: False for errors.
        source: Of the answers: ``human``, ``human_model``, ``simulated``, ``pseudo``; ``labels`` where none are used.
        similarity: ``cosine``, or ``cosine, centred``.
        temperature: That turned similarities into probabilities, where it matters.
        seed: Of the resampling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    chance: float | None = None
    ceiling: float | None = None
    ceiling_low: float | None = None
    higher_is_better: bool = True
    source: str
    similarity: str
    temperature: float | None = None
    seed: int = 0

    @property
    def layer(self) -> str:
        """The layer that the metric's id names."""
        return self.metric.rpartition("@")[2]


class Comparison(BaseModel):
    """A paired difference between two models on one metric, at ``model``'s layer.

    Attributes:
        difference: ``model`` minus ``against``; ``low`` and ``high`` bound its 95 % interval.
        verdict: What that interval says of this metric alone.
        p_value: Two-sided, that there is no difference.
        verdict_corrected: What stands when all metrics of this model, layer and ``against`` are looked at together
            (Holm's correction).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    against: str
    metric: str
    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict
    p_value: float | None = None
    verdict_corrected: Verdict | None = None


class Results(BaseModel):
    """What ``evaluate`` returns and ``results.json`` holds.

    Example:
        >>> results = Results.load("runs/demo/results")  # doctest: +SKIP
        >>> results.score("aligned", "emoji/heldout/agreement.all@shipped").value  # doctest: +SKIP
        0.47
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    run: dict[str, Any]
    scores: list[Score]
    comparisons: list[Comparison]

    @classmethod
    def load(cls, path: PathLike | Results) -> Results:
        """Read ``results.json``, or the one in a folder.

        Raises:
            LikemindError: The file is missing or of another schema.
        """
        if isinstance(path, Results):
            return path
        place = Path(path)
        place = place / "results.json" if place.is_dir() else place
        try:
            return cls.model_validate(read_json(place))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise LikemindError(
                f"{place} is not a results file of schema 1 ({where}: {first['msg'].lower()}): evaluate again"
            ) from None

    def save(self, path: Path) -> None:
        """Write ``results.json``."""
        write_json(path, self.model_dump(mode="json", by_alias=True))

    def find(self, *, model: str | None = None, metric: str = "", layer: str | None = None) -> Iterator[Score]:
        """Yield a model's scores whose id has ``metric`` as its part before ``@``; all where nothing is named."""
        for score in self.scores:
            stem, _, at = score.metric.rpartition("@")
            if model in (None, score.model) and metric in ("", stem) and layer in (None, at):
                yield score

    def table(self) -> str:
        """Return the main scores of every model and layer as plain text, with a line on how to read them."""
        name = self.run["dataset"]["name"]
        wanted = {
            "agreement": "heldout/agreement.all",
            "between": "heldout/agreement.between_class",
            "border": "heldout/agreement.class_border",
            "within": "heldout/agreement.within_class",
            "1-shot": "heldout/fewshot.k1",
            "5-shot": "heldout/fewshot.k5",
            "ρ(entropy, RT)": "heldout/entropy_rt.spearman",
            "ECE": "heldout/ece.after",
        }
        by_id = {(s.model, s.layer, s.metric.rpartition("@")[0]): s for s in self.scores}
        shown = {
            head: f"{name}/{stem}" for head, stem in wanted.items() if any(f"{name}/{stem}" == key[2] for key in by_id)
        }
        lines = [f"{'model':<9}{'layer':<10}" + "".join(f"{head:>15}" for head in shown)]
        for model, layer in dict.fromkeys(key[:2] for key in by_id):
            cells = [by_id.get((model, layer, stem)) for stem in shown.values()]
            lines.append(
                f"{model:<9}{layer:<10}" + "".join(f"{f'{cell.value:.3f}' if cell else '–':>15}" for cell in cells)
            )
        return "\n".join(lines + self._reading(f"{name}/heldout/agreement.all") + self._shifts())

    def _shifts(self) -> list[str]:
        """Return a line for each shift of ``--sets`` and each model, at the layer that it ships."""
        found: dict[tuple[str, str, str], dict[str, float]] = {}
        layers = {(score.model, score.layer) for score in self.scores}
        for score in self.scores:
            shift, _, rest = score.metric.rpartition("@")[0].partition("/")
            domain, _, metric = rest.removesuffix(".all").partition("/")
            shipped = score.layer == "shipped" or (score.model, "shipped") not in layers
            if shipped and (domain, metric) in (("source", "accuracy"), ("target", "accuracy"), ("target", "drop")):
                row = found.setdefault((shift, score.model, score.layer), {})
                row["drop" if metric == "drop" else domain] = score.value
        if not found:
            return []
        heads = ("source", "target", "drop")
        lines = [f"{'shift':<19}{'model':<9}{'layer':<10}" + "".join(f"{head:>9}" for head in heads)]
        names = list(dict.fromkeys(shift for shift, _, _ in found))
        for (shift, model, layer), row in sorted(found.items(), key=lambda entry: names.index(entry[0][0])):
            cells = "".join(f"{f'{row[head]:.3f}' if head in row else '–':>9}" for head in heads)
            lines.append(f"{shift:<19}{model:<9}{layer:<10}{cells}")
        return lines

    def _reading(self, stem: str) -> list[str]:
        found = next(self.find(metric=stem), None)
        if found is None or found.ceiling is None:
            return []
        half = (found.high - found.low) / 2
        about = f"n = {found.n} triplets, chance 0.333, ceiling {found.ceiling:.3f}, 95 % interval about ±{half:.3f}"
        lines = [f"agreement: {about}, source {found.source}"]
        for comparison in self.comparisons:
            if comparison.metric in (f"{stem}@shipped", f"{stem.replace('agreement.all', 'fewshot.k5')}@shipped"):
                points = [100 * value for value in (comparison.difference, comparison.low, comparison.high)]
                what = "agreement" if "agreement" in comparison.metric else "5-shot"
                lines.append(
                    f"{comparison.model} against {comparison.against}, {what} at shipped: "
                    f"{points[0]:+.1f} points [{points[1]:+.1f}, {points[2]:+.1f}], {comparison.verdict}"
                    + ("" if comparison.verdict_corrected in (None, comparison.verdict) else " (alone; not among all)")
                )
        return lines

    def score(self, model: str, metric: str) -> Score:
        """Return one score by its full id.

        Raises:
            LikemindError: There is none.
        """
        for score in self.scores:
            if (score.model, score.metric) == (model, metric):
                return score
        raise LikemindError(f"these results hold no {metric} of {model}: evaluate it")

    def comparison(self, model: str, against: str, metric: str) -> Comparison:
        """Return one comparison by its full id.

        Raises:
            LikemindError: There is none.
        """
        for comparison in self.comparisons:
            if (comparison.model, comparison.against, comparison.metric) == (model, against, metric):
                return comparison
        raise LikemindError(
            f"these results hold no comparison of {model} against {against} on {metric}: evaluate both together"
        )

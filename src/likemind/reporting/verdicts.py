"""The comparisons in plain words, and the tables of numbers behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from likemind.reporting.evidence import HELDOUT, MetricId, Place
from likemind.reporting.words import against, count, frame, level_name, measure, split_name, subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from likemind.evaluation.results import Comparison, Score
    from likemind.reporting.evidence import Evidence

_ANSWERS = {"better": "yes", "worse": "no, worse", "no difference seen": "no difference seen"}
_THEMES = {
    "Likeness": ("agreement.all",),
    "Use": ("fewshot.k1", "fewshot.k5"),
    "Doubt": ("ece.after", "ece.before", "entropy_rt.spearman"),
    "Order": ("grouping.ami",),
}


@dataclass(frozen=True)
class Verdict:
    """One comparison in words.

    Attributes:
        claim: What would be better.
        verdict: ``better``, ``worse`` or ``no difference seen``.
        answer: The verdict in words.
        amount: Difference and unit.
        interval: Its 95 % interval.
        note: n and layers.
        low, middle, high: The interval on a scale from -1 to 1 that its theme shares.
    """

    claim: str
    verdict: str
    answer: str
    amount: str
    interval: str
    note: str
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Theme:
    """Verdicts on one subject."""

    name: str
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Headline:
    """The page's title and the sentence under it."""

    title: str
    lede: str


@dataclass(frozen=True)
class Column:
    """A column of the main table: its name, and n, chance and ceiling."""

    name: str
    frame: str


@dataclass(frozen=True)
class Cell:
    """A number and its interval; "" where there is none."""

    value: str
    interval: str


@dataclass(frozen=True)
class Row:
    """A model at a layer, with a cell (or two: before → after) a column."""

    place: Place
    cells: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """The main table."""

    columns: list[Column]
    rows: list[Row]


def themes(evidence: Evidence, observers: str) -> list[Theme]:
    """Return the headline comparisons of the aligned model, in words."""
    found = []
    for name, stems in _THEMES.items():
        chosen = [comparison for stem in stems for comparison in _comparisons(evidence, stem)]
        widest = {
            stem: max(abs(bound) for one in chosen for bound in (one.low, one.high) if _unit(one) == stem) or 1.0
            for stem in map(_unit, chosen)
        }
        verdicts = [_verdict(evidence, one, observers, widest[_unit(one)]) for one in chosen]
        if verdicts:
            found.append(Theme(name, verdicts))
    return found


def _unit(comparison: Comparison) -> str:
    return measure(MetricId.parse(comparison.metric).stem).unit


def _comparisons(evidence: Evidence, stem: str) -> list[Comparison]:
    """Return those worth a line: against the base model; agreement also against the others and at every layer."""
    after, own = evidence.after, evidence.dataset["name"]
    if after is None:
        return []
    found = []
    for position, comparison in enumerate(evidence.results.comparisons):
        metric, base = MetricId.parse(comparison.metric), comparison.against == evidence.before.model
        if (comparison.model, metric.dataset, metric.stem) != (after.model, own, stem):
            continue
        likeness, main, heldout = stem == "agreement.all", metric.layer == after.layer, metric.split == HELDOUT
        if (main and (base or (likeness and heldout))) or (base and likeness and heldout):
            found.append((not main, not heldout, not base, position, comparison))
    return [comparison for *_, comparison in sorted(found, key=lambda one: one[:-1])]


def _verdict(evidence: Evidence, comparison: Comparison, observers: str, widest: float) -> Verdict:
    metric = MetricId.parse(comparison.metric)
    how = measure(metric.stem).fine_enough(comparison.low, comparison.high)
    amount = f"{how.signed(comparison.difference)} {how.unit}".strip()
    interval = how.interval(comparison.low, comparison.high)
    other = evidence.main_place(comparison.against).layer if comparison.against in evidence.models else ""
    same = Place(comparison.against, metric.layer) in evidence.places
    note = f"n {count(comparison.n)} {how.counted} · {metric.layer} against {metric.layer if same else other}"
    low, middle, high = (value / widest for value in (comparison.low, comparison.difference, comparison.high))
    return Verdict(
        _claim(evidence, comparison, observers),
        comparison.verdict,
        _ANSWERS[comparison.verdict],
        amount,
        interval,
        note,
        low,
        middle,
        high,
    )


def _claim(evidence: Evidence, comparison: Comparison, observers: str) -> str:
    metric, other = MetricId.parse(comparison.metric), against(comparison.against)
    where = "" if metric.split == HELDOUT else f", on {split_name(metric.split)}"
    family = metric.stem.split(".")[0]
    if family == "agreement":
        extra = "" if evidence.after and metric.layer == evidence.after.layer else f", at its {metric.layer} layer"
        return f"Closer to {observers} than {other}{where}{extra}"
    if family == "fewshot":
        shots = metric.stem.rpartition(".k")[2]
        return f"Few-shot ({shots}) better than {other}{where}"
    return {
        "ece.before": f"Better calibrated than {other} as it comes",
        "ece.after": f"Better calibrated than {other}, both with a fitted temperature",
        "entropy_rt.spearman": f"In doubt where {observers} take longer, more than {other}",
        "grouping.ami": f"Clusters nearer to the named groups than those of {other}",
    }[metric.stem] + where


def headline(evidence: Evidence, observers: str) -> Headline:
    """Return the title, which is the answer, and the two numbers that it rests on."""
    before, after = evidence.before, evidence.after
    scores = [score for place in evidence.pair if (score := evidence.score(place, "agreement.all"))]
    lede = _lede(evidence.pair, scores, observers)
    if after is None:
        return Headline(f"How near is “{before.model}” to {observers}?", lede)
    metric = f"{evidence.dataset['name']}/{HELDOUT}/agreement.all@{after.layer}"
    verdicts = {
        one.against: one.verdict
        for one in evidence.results.comparisons
        if (one.model, one.metric) == (after.model, metric)
    }
    verdict = verdicts.get(before.model)
    mine, other = subject(after.model), against(before.model)
    if verdict is None:
        return Headline(f"{mine} and {other}, side by side", lede)
    if verdict == "no difference seen":
        return Headline(f"{mine} is no closer to {observers} than {other}, as far as can be seen", lede)
    return Headline(
        f"{mine} is {'closer to' if verdict == 'better' else 'further from'} {observers} than {other}",
        lede + _control(verdicts),
    )


def _control(verdicts: Mapping[str, str]) -> str:
    if "control" not in verdicts:
        return " There is no control here, so what the answers taught is not told from what training alone changes."
    if verdicts["control"] != "better":
        return " The control, trained alike without the answers, does as well: the gain need not come from them."
    return " It is also closer than the control, which was trained alike without the answers."


def _lede(places: Sequence[Place], scores: Sequence[Score], observers: str) -> str:
    if not scores:
        return ""
    how = measure("agreement")
    parts = [
        f"{place.model} (layer {place.layer}) {how.number(score.value)} % {how.interval(score.low, score.high)}"
        for place, score in zip(reversed(places), reversed(scores), strict=False)
    ]
    said = f"{', '.join(parts)}; {frame(scores, 'agreement')}"
    return f"Agreement with {observers} on which of three is the odd one out: {said}."


def main_table(evidence: Evidence) -> Table:
    """Return every model and layer with the numbers that matter most."""
    shifts = [split for split in evidence.splits("agreement.all") if split != HELDOUT]
    wanted: list[tuple[str, str, tuple[str, ...]]] = [("Agreement, %", HELDOUT, ("agreement.all",))]
    wanted += [(f"{shots}-shot, %", HELDOUT, (f"fewshot.k{shots}",)) for shots in (1, 5)]
    wanted += [
        ("Entropy–time, ρ", HELDOUT, ("entropy_rt.spearman",)),
        ("Calibration error, %, before → after", HELDOUT, ("ece.before", "ece.after")),
    ]
    wanted += [(f"Agreement on {split_name(split)}, %", split, ("agreement.all",)) for split in shifts]
    columns, grid = [], []
    for name, split, stems in wanted:
        cells = [[evidence.score(place, stem, split) for stem in stems] for place in evidence.places]
        known = [score for pair in cells for score in pair if score]
        if known:
            columns.append(Column(name, frame(known, stems[0])))
            grid.append(cells)
    rows = [
        Row(place, [[_cell(score) for score in cells[at]] for cells in grid])
        for at, place in enumerate(evidence.places)
    ]
    return Table(columns, rows)


def _cell(score: Score | None) -> Cell:
    if score is None:
        return Cell("", "")
    how = measure(MetricId.parse(score.metric).stem)
    return Cell(how.number(score.value), how.interval(score.low, score.high))


def all_scores(evidence: Evidence) -> list[dict[str, str]]:
    """Return every score with all that is needed to read it."""
    rows = []
    for score in evidence.results.scores:
        how = measure(MetricId.parse(score.metric).stem)
        optional = {
            name: how.number(value) if (value := getattr(score, name)) is not None else "–"
            for name in ("chance", "ceiling")
        }
        temperature = f"{score.temperature:.4g}" if score.temperature is not None else "–"
        direction = "higher" if score.higher_is_better else "lower"
        rows.append(
            {
                "model": score.model,
                "metric": score.metric,
                "value": how.number(score.value),
                "interval": how.interval(score.low, score.high),
            }
            | {"n": count(score.n), **optional, "better": direction, "source": score.source}
            | {"similarity": score.similarity, "temperature": temperature, "seed": str(score.seed)}
        )
    return rows


def all_comparisons(evidence: Evidence) -> list[dict[str, str]]:
    """Return every comparison, in words and numbers."""
    rows = []
    for one in evidence.results.comparisons:
        how = measure(MetricId.parse(one.metric).stem).fine_enough(one.low, one.high)
        rows.append(
            {"model": one.model, "against": one.against, "metric": one.metric, "difference": how.signed(one.difference)}
            | {"interval": how.interval(one.low, one.high), "n": count(one.n), "verdict": one.verdict}
        )
    return rows


def level_heading(stem: str) -> str:
    """Name the panel of ``agreement.LEVEL``."""
    return level_name(stem.rpartition(".")[2])

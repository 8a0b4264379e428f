"""The tables of numbers behind the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from likemind.reporting.evidence import HELDOUT, MetricId
from likemind.reporting.words import count, frame, level_name, measure, source_name, split_name, tasks_name

if TYPE_CHECKING:
    from likemind.evaluation.results import Score
    from likemind.reporting.evidence import Evidence, Place

_RECORDED = {"accuracy": "Answers matched on {}, %", "rsa.spearman": "Ratings matched on {}, ρ"}


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


def main_table(evidence: Evidence) -> Table:
    """Return every model and layer with the numbers that matter most."""
    few = "" if evidence.tasks == f"{evidence.name}/{HELDOUT}" else f" on {tasks_name(evidence.tasks)}"
    own = f"{evidence.name}/{HELDOUT}"
    wanted: list[tuple[str, str, tuple[str, ...]]] = [("Agreement, %", own, ("agreement.all",))]
    for prefix, stem in evidence.recorded:
        wanted.append((_RECORDED[stem].format(prefix.partition("/")[0]), prefix, (stem,)))
    wanted += [(f"{shots}-shot{few}, %", evidence.tasks, (f"fewshot.k{shots}",)) for shots in (1, 5)]
    wanted += [
        ("Entropy–time, ρ", own, ("entropy_rt.spearman",)),
        ("Calibration error, %, before → after", own, ("ece.before", "ece.after")),
    ]
    for split in evidence.splits("agreement.all"):
        if split != HELDOUT:
            name = f"Agreement on {split_name(split)}, %"
            wanted.append((name, f"{evidence.name}/{split}", ("agreement.all",)))
    columns, grid = [], []
    for name, prefix, stems in wanted:
        cells = [[evidence.score_at(place, prefix, stem) for stem in stems] for place in evidence.places]
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
            | {"n": count(score.n), **optional, "better": direction, "source": source_name(score.source)}
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
            | {"together": one.verdict_corrected or "–"}
        )
    return rows


def level_heading(stem: str) -> str:
    """Name the panel of ``agreement.LEVEL``."""
    return level_name(stem.rpartition(".")[2])

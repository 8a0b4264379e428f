"""Results as tables for others to read: CSV, and a page of Markdown."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from likemind.evaluation.results import Results


def scores_csv(results: Results) -> str:
    """Return a row a score, with all fields of the contract."""
    return _csv([score.model_dump(mode="json") for score in results.scores])


def comparisons_csv(results: Results) -> str:
    """Return a row a comparison, with all fields of the contract."""
    return _csv([one.model_dump(mode="json") for one in results.comparisons])


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    sink = io.StringIO()
    if rows:
        writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return sink.getvalue()


def _plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def markdown(results: Results) -> str:
    """Return what was evaluated on what, every score and every comparison, as Markdown."""
    dataset = results.run["dataset"]
    lines = [f"# Evaluation on {_words(dataset['name'])}", "", _words(dataset.get("about", "")), ""]
    kinds = dict.fromkeys(score.source for score in results.scores)
    lines += [f"Sources of the answers: {', '.join(f'`{kind}`' for kind in kinds)}. Intervals are of 95 %.", ""]
    heads: Sequence[str] = ("model", "metric", "value", "95 %", "n", "chance", "ceiling", "better", "source")
    lines += _table(
        heads,
        (
            (
                score.model,
                score.metric,
                _number(score.value),
                f"{_number(score.low)} to {_number(score.high)}",
                score.n,
                _number(score.chance),
                _number(score.ceiling),
                "higher" if score.higher_is_better else "lower",
                score.source,
            )
            for score in results.scores
        ),
    )
    if results.comparisons:
        heads = ("model", "against", "metric", "difference", "95 %", "verdict", "all metrics together")
        about = "The last column is what stands after Holm’s correction over all metrics of a layer against one rival."
        lines += ["", "## Comparisons", "", about, ""]
        lines += _table(
            heads,
            (
                (
                    one.model,
                    one.against,
                    one.metric,
                    _number(one.difference, signed=True),
                    f"{_number(one.low, signed=True)} to {_number(one.high, signed=True)}",
                    one.verdict,
                    one.verdict_corrected or "–",
                )
                for one in results.comparisons
            ),
        )
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    head = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return head + [f"| {' | '.join(_words(cell) for cell in row)} |" for row in rows]


def _words(text: object) -> str:
    """Text on one line, with nothing in it that Markdown or HTML would take for its own."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    return (f"{value:+.3f}" if signed else f"{value:.3f}").replace("-", "−")

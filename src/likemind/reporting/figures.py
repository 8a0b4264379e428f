"""The figures: small panels, drawn by matplotlib, inlined as SVG that follows the page's colours and font.

Colours are drawn as placeholders and replaced by the page's CSS variables, so that one drawing serves light and dark.
The same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likemind.evaluation.results import Score
    from likemind.reporting.evidence import Choices
    from likemind.reporting.words import Measure

SLOTS = 8
BINS = 10
DOTS = 300
INK, MUTED, LINE, TRACK, PAPER = "#fe9901", "#fe9902", "#fe9903", "#fe9904", "#fe9905"
_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    TRACK: "var(--track)",
    PAPER: "var(--card)",
}
_FIXED_SLOTS = {"base": 0, "teacher": 1, "control": 2, "aligned": 3}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "lines.solid_capstyle": "round",
}


Span = tuple[float, float]


class Bar(NamedTuple):
    """One bar: its label, its model’s colour slot, and the score."""

    label: str
    slot: int
    score: Score


class Bin(NamedTuple):
    """One bin of triplets: mean of x, mean of y with its 95 % interval, and how many there are."""

    x: float
    y: float
    low: float
    high: float
    n: int


def slots_of(models: Sequence[str]) -> dict[str, int]:
    """Return each model’s colour slot: fixed for the four models of a demo, the next free one for others."""
    taken = {model: _FIXED_SLOTS[model] for model in models if model in _FIXED_SLOTS}
    free = [slot for slot in range(SLOTS) if slot not in taken.values()]
    others = [model for model in models if model not in taken]
    return taken | {model: free[position % len(free)] for position, model in enumerate(others)}


def score_bars(bars: Sequence[Bar], measure: Measure, about: str) -> Markup:
    """Draw horizontal bars from zero, each before the track that its ceiling leaves, with chance as a dashed line.

    Args:
        bars: At least one, top to bottom.
        measure: How the numbers are written.
        about: What a reader who cannot see the figure should hear.
    """
    with canvas(4.9, 0.62 + 0.31 * len(bars)) as (figure, axes):
        scale = measure.scale
        for y, (_, slot, score) in enumerate(bars):
            if score.ceiling is not None:
                axes.barh(y, score.ceiling * scale, height=0.62, color=TRACK, linewidth=0)
            axes.barh(y, score.value * scale, height=0.62, color=slot_colour(slot), linewidth=0)
            axes.plot([score.low * scale, score.high * scale], [y, y], color=INK, linewidth=1.5)
        chances = {bar.score.chance for bar in bars if bar.score.chance is not None}
        ceilings = {bar.score.ceiling for bar in bars if bar.score.ceiling is not None}
        top = max([*(bar.score.high for bar in bars), *chances, *ceilings]) * scale
        axes.set_ylim(len(bars) - 0.5, -0.95)
        _marks(axes, "chance", [value * scale for value in chances], "--")
        _marks(axes, "ceiling", [value * scale for value in ceilings], "-")
        for y, bar in enumerate(bars):
            axes.text(top * 1.13, y, measure.number(bar.score.value), va="center", ha="right")
        axes.set_xlim(min(0.0, *(bar.score.low * scale for bar in bars)), top * 1.14)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return inline(figure, about)


def _marks(axes: Axes, name: str, values: Sequence[float], style: str) -> None:
    if len(values) == 1:
        axes.plot([values[0]] * 2, [-0.5, axes.get_ylim()[0]], color=MUTED, linewidth=1, linestyle=style)
        axes.text(values[0], -0.6, name, color=MUTED, ha="center", va="bottom", fontsize=8.5)


def equal_bins(x: np.ndarray, y: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Put triplets into bins of equal size by ``x``; the interval of a mean is ± 1.96 standard errors.

    Shapes:
        x, y: (n,), finite. Returns at most ``bins`` bins; fewer where there are fewer triplets.
    """
    parts = np.array_split(np.argsort(x, kind="stable"), min(bins, max(1, len(x) // 2)))
    found = []
    for rows in parts:
        mean = float(y[rows].mean())
        half = 1.96 * float(y[rows].std(ddof=1)) / np.sqrt(len(rows)) if len(rows) > 1 else 0.0
        found.append(Bin(float(x[rows].mean()), mean, mean - half, mean + half, len(rows)))
    return found


def reliability_bins(choices: Choices) -> dict[str, list[Bin]]:
    """Return the observers' share of the likeliest pair by the model's confidence, before and after the temperature."""
    found = {}
    for name in ("before", "after") if len(choices) else ():
        probabilities = getattr(choices, name)
        share = choices.people[np.arange(len(choices)), probabilities.argmax(axis=1)]
        found[name] = equal_bins(probabilities.max(axis=1), share)
    return found


def reliability(bins: dict[str, list[Bin]], slot: int, span: Span, about: str) -> Markup:
    """Draw a reliability diagram on the axes ``span`` × ``span``: hollow before, filled after."""
    with canvas(2.4, 2.3) as (figure, axes):
        axes.plot(span, span, color=LINE, linewidth=1, linestyle="--")
        for name, drawn in bins.items():
            after = name == "after"
            color = slot_colour(slot) if after else MUTED
            x, y = [one.x for one in drawn], [one.y for one in drawn]
            axes.vlines(x, [one.low for one in drawn], [one.high for one in drawn], color=color, linewidth=1)
            axes.plot(
                x,
                y,
                color=color,
                linewidth=1.6 if after else 1,
                marker="o",
                markersize=4.2,
                markerfacecolor=color if after else PAPER,
            )
        axes.set(xlim=span, ylim=span, xlabel="model’s confidence", ylabel="observers’ share")
        ticks = [tick / 5 for tick in range(6) if span[0] <= tick / 5 <= span[1]]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set_aspect("equal")
        return inline(figure, about)


def doubt(entropy: np.ndarray, seconds: np.ndarray, slot: int, spans: tuple[Span, Span], about: str) -> Markup:
    """Draw response time against the model’s entropy: some triplets as dots, all in equal bins with intervals.

    Shapes:
        entropy: (n,) nats. seconds: (n,), finite. ``spans``: the nats and the seconds shown.
    """
    with canvas(2.4, 2.2) as (figure, axes):
        shown = np.unique(np.linspace(0, len(entropy) - 1, min(DOTS, len(entropy))).astype(int))
        for values, (low, high) in zip((entropy, seconds), spans, strict=True):
            shown = shown[(values[shown] >= low) & (values[shown] <= high)]
        axes.plot(
            entropy[shown],
            seconds[shown],
            linestyle="",
            marker="o",
            markersize=1.8,
            markeredgewidth=0,
            color=MUTED,
            alpha=0.45,
        )
        drawn = equal_bins(entropy, seconds)
        x = [one.x for one in drawn]
        axes.vlines(x, [one.low for one in drawn], [one.high for one in drawn], color=slot_colour(slot), linewidth=1.4)
        axes.plot(x, [one.y for one in drawn], color=slot_colour(slot), linewidth=1.8, marker="o", markersize=4.2)
        axes.set(xlim=spans[0], ylim=spans[1], xlabel="model’s entropy, nats", ylabel="response time, s")
        axes.locator_params(axis="x", nbins=4)
        return inline(figure, about)


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of so many inches with one pair of axes, in the page's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure((width, height), layout="constrained", facecolor="none")
        yield figure, figure.add_subplot(facecolor="none")


def slot_colour(slot: int) -> str:
    """Return the placeholder of a model’s colour."""
    return f"#fe88{slot:02x}"


def inline(figure: Figure, about: str) -> Markup:
    """Return the figure as an SVG element without ids, fonts, dates or colours of its own."""
    import matplotlib as mpl

    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "likemind"}):
        figure.savefig(
            sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = sink.getvalue()
    return Markup(_tidy(text[text.index("<svg") :], str(escape(about))))  # noqa: S704


def _tidy(svg: str, about: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(font: [^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \2px", svg)
    for placeholder, variable in _all_variables():
        svg = svg.replace(placeholder, variable)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    body = svg[svg.index(">") + 1 :]
    return f'<svg class="plot" {box[0]} role="img" aria-label="{about}">{_own_ids(body, about)}'


def _all_variables() -> Iterator[tuple[str, str]]:
    yield from _VARIABLES.items()
    yield from ((slot_colour(slot), f"var(--m{slot})") for slot in range(SLOTS))


def _own_ids(body: str, about: str) -> str:
    """Drop ids that nothing points at, and make the others this figure's own."""
    pointed = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in pointed else "", body)
    own = hashlib.sha256((about + body).encode()).hexdigest()[:8]
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{own}-", body)

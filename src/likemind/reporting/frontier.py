"""What aligning costs: agreement against few-shot accuracy for everything that could have been shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from likemind.reporting.figures import INK, MUTED, TRACK, canvas, inline, slot_colour
from likemind.reporting.words import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes

    from likemind.reporting.evidence import Evidence

_MARKERS = {"backbone": "o", "mix": "D", "head": "s"}
_CONTROL = "control"


@dataclass(frozen=True)
class Candidate:
    """One way to ship a model; numbers are shares measured on validation objects."""

    kind: str
    alpha: float
    beta: float
    agreement: float
    fewshot: float
    shipped: bool = False

    @property
    def cells(self) -> list[str]:
        """Kind, α, β, agreement and few-shot accuracy as the page writes them."""
        numbers = [measure(stem).number(value) for stem, value in self._measured]
        return [self.kind, f"{self.alpha:g}", f"{self.beta:g}", *numbers]

    @property
    def _measured(self) -> list[tuple[str, float]]:
        return [("agreement", self.agreement), ("fewshot", self.fewshot)]


@dataclass(frozen=True)
class Frontier:
    """The candidates of one model, drawn.

    Attributes:
        model: Whose.
        base: What all started from.
        candidates: All that were measured.
        shipped: The one that was chosen.
        max_loss: Points of few-shot accuracy that it might lose; None where the run does not tell.
        kept: How many candidates lose no more than that; None where it is not known.
        control: Whether the control's candidates are drawn too.
        svg: The figure.
    """

    model: str
    base: Candidate
    candidates: list[Candidate]
    shipped: Candidate
    max_loss: float | None
    kept: int | None
    control: bool
    svg: Markup


def draw_frontier(evidence: Evidence, slots: dict[str, int]) -> Frontier | None:
    """Draw what ``align`` measured of the aligned model; None where it measured nothing, or no few-shot accuracy."""
    model = evidence.after.model if evidence.after else None
    measured = _measured(evidence, model)
    if model is None or measured is None:
        return None
    base, candidates = measured
    shipped = next((candidate for candidate in candidates if candidate.shipped), None)
    if shipped is None:
        return None
    beside = _measured(evidence, _CONTROL) if model != _CONTROL else None
    config = (evidence.run["models"][model].get("made") or {}).get("config") or {}
    loss = (config.get("recipe") or {}).get("max_loss")
    kept = None
    if loss is not None:
        kept = sum(one.fewshot >= base.fewshot - loss / 100 - 1e-9 for one in candidates)
    about = _about(model, base, candidates, shipped, loss)
    svg = _draw(base, candidates, beside[1] if beside else [], (slots[model], slots.get(_CONTROL, 0)), loss, about)
    return Frontier(model, base, candidates, shipped, loss, kept, beside is not None, svg)


def _measured(evidence: Evidence, model: str | None) -> tuple[Candidate, list[Candidate]] | None:
    """Return the base and the candidates of a model; None where they or their few-shot accuracies are not known."""
    told = evidence.run.get("models", {}).get(model, {}).get("retention") or {}
    base, shipped, found = (told.get(name) for name in ("base", "shipped", "candidates"))
    if not base or not found or base.get("fewshot") is None:
        return None
    candidates = [_candidate(one, shipped == one) for one in found if one.get("fewshot") is not None]
    return (_candidate(base, False), candidates) if candidates else None


def _candidate(told: dict[str, Any], shipped: bool) -> Candidate:
    alpha, beta, agreement, fewshot = (float(told[name]) for name in ("alpha", "beta", "agreement", "fewshot"))
    return Candidate(str(told["shipped"]), alpha, beta, agreement, fewshot, shipped)


def _about(model: str, base: Candidate, candidates: Sequence[Candidate], shipped: Candidate, loss: float | None) -> str:
    said = [f"{one.kind} at α {one.alpha:g}: {one.cells[3]} and {one.cells[4]}" for one in candidates]
    allowed = "" if loss is None else f", of which {loss:g} points of few-shot accuracy might be lost"
    return (
        f"Agreement in per cent and few-shot accuracy in per cent of the candidates of {model}; the base has "
        f"{base.cells[3]} and {base.cells[4]}{allowed}. {'; '.join(said)}. Shipped: {shipped.kind} at α "
        f"{shipped.alpha:g}."
    )


def _draw(
    base: Candidate,
    candidates: Sequence[Candidate],
    control: Sequence[Candidate],
    slots: tuple[int, int],
    loss: float | None,
    about: str,
) -> Markup:
    with canvas(5.2, 3.8) as (figure, axes):
        x, y = _points([base])[0]
        if loss is not None:
            axes.axvspan(x - loss, x, color=TRACK, linewidth=0, zorder=0)
        axes.axvline(x, color=MUTED, linewidth=0.8, linestyle="--", zorder=1)
        axes.axhline(y, color=MUTED, linewidth=0.8, linestyle="--", zorder=1)
        _paths(axes, control, slot_colour(slots[1]), pale=True)
        _paths(axes, candidates, slot_colour(slots[0]), pale=False)
        axes.plot([x], [y], marker="o", markersize=7, color=slot_colour(0), linestyle="", zorder=4)
        _say(axes, "base", (x, y), (8, -13))
        for point in _points([one for one in candidates if one.shipped]):
            axes.plot(*point, marker="o", markersize=17, markerfacecolor="none", markeredgecolor=INK, zorder=5)
            _say(axes, "shipped", point, (12, 8), weight="bold")
        axes.set(xlabel="few-shot accuracy on validation classes, %", ylabel="agreement on validation objects, %")
        axes.margins(0.13, 0.15)
        return inline(figure, about)


def _points(candidates: Sequence[Candidate]) -> list[tuple[float, float]]:
    return [(100 * one.fewshot, 100 * one.agreement) for one in candidates]


def _say(axes: Axes, text: str, point: tuple[float, float], offset: tuple[int, int], weight: str = "normal") -> None:
    axes.annotate(text, point, offset, textcoords="offset points", color=INK, fontsize=9, weight=weight)


def _paths(axes: Axes, candidates: Sequence[Candidate], colour: str, *, pale: bool) -> None:
    """Draw one path an α, from the backbone through the mixes to the head; the further from the base, the fuller."""
    for alpha in sorted({one.alpha for one in candidates}):
        path = sorted((one for one in candidates if one.alpha == alpha), key=lambda one: one.beta)
        points = _points(path)
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, alpha=0.25 if pale else 0.55, zorder=2)
        opacity = 0.22 if pale else 0.3 + 0.7 * alpha
        for one, point in zip(path, points, strict=True):
            marker = _MARKERS.get(one.kind, "o")
            size = {"D": 5.2, "s": 6.8}.get(marker, 7.4) * (0.75 if pale else 1)
            axes.plot(*point, marker=marker, markersize=size, color=colour, alpha=opacity, markeredgewidth=0, zorder=3)
        if not pale:
            axes.annotate(
                f"α {alpha:g}", points[0], (0, -13), textcoords="offset points", color=MUTED, fontsize=8, ha="center"
            )

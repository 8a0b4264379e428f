"""From evidence to HTML: what each section shows, rendered by one template."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from likemind.reporting import figures, words
from likemind.reporting.clusters import contact_sheet
from likemind.reporting.evidence import HELDOUT, MetricId
from likemind.reporting.examples import gallery, neighbourhoods
from likemind.reporting.frontier import draw_frontier
from likemind.reporting.identity import made, settings, sources
from likemind.reporting.maps import GROUP_COLOURS, SIDE, draw_maps
from likemind.reporting.matrices import RAMP, draw_groups, draw_matrices
from likemind.reporting.tables import all_comparisons, all_scores, level_heading, main_table
from likemind.reporting.thumbnails import Album
from likemind.reporting.verdicts import headline, themes

if TYPE_CHECKING:
    from likemind.artifacts import PathLike
    from likemind.reporting.evidence import Choices, Evidence, Place


@dataclass(frozen=True)
class Panel:
    """A small figure with its heading and the numbers that it is read with."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class PanelSet:
    """Panels under one heading."""

    name: str
    panels: list[Panel]


def render(evidence: Evidence, *, labels: PathLike | None, pictures: bool, key: str) -> bytes:
    """Return the whole page.

    Raises:
        LikemindError: Pictures are wanted and their files are missing or damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": words.count,
        "split_name": words.split_name,
        "two": lambda value: f"{value:.2f}".replace("-", "−"),
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    filled = context(evidence, Album(evidence.data, pictures=pictures), labels)
    credits_ = words.credits_of(evidence.dataset["licences"]) if pictures else []
    page = environment.get_template("template.html.j2").render(filled, key=key, credits=credits_)
    return (page + "\n").encode()


def context(evidence: Evidence, album: Album, labels: PathLike | None) -> dict[str, Any]:
    """Return what the template is filled with."""
    source = str(evidence.dataset["source"])
    observers = words.OBSERVERS.get(source, source)
    slots = figures.slots_of(evidence.models)
    matrices = draw_matrices(evidence)
    shown: dict[str, Any] = {
        "evidence": evidence,
        "dataset": evidence.dataset,
        "observers": observers,
        "notice": words.notice(source, evidence.sources),
        "answers": words.answers(source),
        "headline": headline(evidence, observers),
        "themes": themes(evidence, observers),
        "tasks": words.tasks_name(evidence.tasks) if evidence.dataset.get("tasks") else "",
        "table": main_table(evidence),
        "levels": _levels(evidence, slots),
        "frontier": draw_frontier(evidence, slots),
        "matrices": matrices,
        "ramp": RAMP,
        "groups": None if matrices else draw_groups(evidence, observers),
        "reliability": _reliability(evidence, slots, observers),
        "doubt": _doubt(evidence, slots),
        **_pictured(evidence, album, observers, labels),
        "slots": slots,
        "bins": figures.BINS,
        "dots": figures.DOTS,
        "scores": all_scores(evidence),
        "comparisons": all_comparisons(evidence),
        **_identity(evidence),
        **_script(),
    }
    return shown


def _pictured(evidence: Evidence, album: Album, observers: str, labels: PathLike | None) -> dict[str, Any]:
    """Return the sections with pictures, and last the pictures that they ask for."""
    maps = draw_maps(evidence, album)
    return {
        "maps": maps,
        "side": SIDE,
        "half": round(maps.radius * 0.86, 1) if maps else 0,
        "grey": GROUP_COLOURS,
        "gallery": gallery(evidence, album, observers),
        "neighbourhoods": neighbourhoods(evidence, album),
        "sheet": contact_sheet(evidence, album, labels),
        "thumbnails": album.thumbnails(),
    }


def _script() -> dict[str, Any]:
    """Return the page's one script, and its hash for the content security policy: no other may run."""
    text = (Path(__file__).parent / "hover.js").read_text()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": f"sha256-{digest}"}  # noqa: S704


def _identity(evidence: Evidence) -> dict[str, Any]:
    return {
        "run": evidence.run,
        "models": made(evidence),
        "sources": sources(evidence),
        "similarities": sorted({score.similarity for score in evidence.results.scores}),
        "rest": settings(evidence),
    }


def _levels(evidence: Evidence, slots: dict[str, int]) -> list[PanelSet]:
    found = []
    for split in evidence.splits("agreement.all"):
        panels = [panel for stem in _stems(evidence) if (panel := _level(evidence, slots, split, stem))]
        found.append(PanelSet(split, panels))
    return found


def _stems(evidence: Evidence) -> list[str]:
    """Return the metrics of agreement: the levels that have a name here, then any others."""
    scored = [MetricId.parse(score.metric).stem for score in evidence.results.scores]
    named = [f"agreement.{level}" for level in words.LEVELS]
    return list(dict.fromkeys([*named, *(stem for stem in scored if stem.startswith("agreement."))]))


def _level(evidence: Evidence, slots: dict[str, int], split: str, stem: str) -> Panel | None:
    scored = [(place, score) for place in evidence.places if (score := evidence.score(place, stem, split))]
    if not scored:
        return None
    how = words.measure(stem)
    bars = [figures.Bar(place.label, slots[place.model], score) for place, score in scored]
    said = ", ".join(
        f"{place.label} {how.number(score.value)} {how.interval(score.low, score.high)}" for place, score in scored
    )
    note = words.frame([score for _, score in scored], stem)
    title = level_heading(stem)
    svg = figures.score_bars(
        bars, how, f"Bars of agreement in per cent, {words.split_name(split)}, {title.lower()}: {said}; {note}."
    )
    return Panel(title, note, svg)


def _reliability(evidence: Evidence, slots: dict[str, int], observers: str) -> list[Panel]:
    drawn = {
        place: bins
        for place in evidence.places
        if place in evidence.choices and (bins := figures.reliability_bins(evidence.choices[place]))
    }
    span = _square([one for bins in drawn.values() for some in bins.values() for one in some])
    panels = []
    for place, bins in drawn.items():
        parts = [f"{name} {_said(evidence, place, f'ece.{name}')}" for name in ("before", "after")]
        note = f"error, %: {', '.join(parts)} · n\u00a0{words.count(sum(one.n for one in bins['after']))}"
        steps = "; ".join(f"{one.x:.2f} → {one.y:.2f}" for one in bins["after"])
        about = f"Reliability of {place.label} against {observers}, confidence → share once fitted: {steps}. {note}."
        panels.append(Panel(place.label, note, figures.reliability(bins, slots[place.model], span, about)))
    return panels


def _square(bins: list[figures.Bin]) -> figures.Span:
    """Return the span, in whole tenths, that holds all bins on both axes."""
    values = [value for one in bins for value in (one.x, one.low, one.high)]
    if not values:
        return 0.0, 1.0
    return max(0.0, float(np.floor(min(values) * 10) / 10)), min(1.02, float(np.ceil(max(values) * 10) / 10) + 0.02)


def _doubt(evidence: Evidence, slots: dict[str, int]) -> list[Panel]:
    timed = {place: evidence.choices[place] for place in evidence.places if place in evidence.choices}
    timed = {place: choices for place, choices in timed.items() if np.isfinite(choices.response_time).sum() > 2}
    if not timed:
        return []
    rows = {place: np.isfinite(choices.response_time) for place, choices in timed.items()}
    seconds = np.concatenate([choices.response_time[rows[place]] for place, choices in timed.items()])
    nats = {place: entropy_of(choices)[rows[place]] for place, choices in timed.items()}
    spans = (_span(np.concatenate(list(nats.values())), 1, 100), _span(seconds, 1, 99))
    panels = []
    for place, choices in timed.items():
        note = f"ρ {_said(evidence, place, 'entropy_rt.spearman')} · n\u00a0{words.count(len(nats[place]))}"
        about = f"Response time in seconds against the entropy of {place.label}: rank correlation {note}."
        taken = choices.response_time[rows[place]]
        panels.append(Panel(place.label, note, figures.doubt(nats[place], taken, slots[place.model], spans, about)))
    return panels


def _span(values: np.ndarray, low: float, high: float) -> figures.Span:
    """Return the span between two percentiles, with a little room."""
    start, end = np.percentile(values, [low, high])
    room = 0.08 * (end - start) or 0.1
    return float(start - room), float(end + room)


def entropy_of(choices: Choices) -> np.ndarray:
    """Return the entropy of the model's choice at the fitted temperature, in nats, (n,)."""
    from scipy.special import entr

    return np.asarray(entr(choices.after.astype(np.float64)).sum(axis=1))


def _said(evidence: Evidence, place: Place, stem: str) -> str:
    score = evidence.score(place, stem, HELDOUT)
    how = words.measure(stem)
    return f"{how.number(score.value)} {how.interval(score.low, score.high)}" if score else "not scored"

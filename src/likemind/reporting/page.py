"""From evidence to HTML: what each section shows, rendered by one template."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from likemind.reporting import figures, words
from likemind.reporting.evidence import HELDOUT
from likemind.reporting.examples import gallery, neighbourhoods
from likemind.reporting.maps import GROUP_COLOURS, SIDE, draw_maps
from likemind.reporting.thumbnails import Album
from likemind.reporting.verdicts import all_comparisons, all_scores, headline, level_heading, main_table, themes

if TYPE_CHECKING:
    from likemind.reporting.evidence import Choices, Evidence, Place

_LEVELS = ("all", "between_class", "class_border", "within_class")


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


def render(evidence: Evidence, *, pictures: bool, key: str) -> bytes:
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
    page = environment.get_template("template.html.j2").render(context(evidence, pictures=pictures, key=key))
    return (page + "\n").encode()


def context(evidence: Evidence, *, pictures: bool, key: str) -> dict[str, Any]:
    """Return what the template is filled with."""
    source = str(evidence.dataset["source"])
    observers = words.OBSERVERS.get(source, source)
    slots = figures.slots_of(evidence.models)
    album = Album(evidence.data, pictures=pictures)
    maps = draw_maps(evidence, album)
    return {
        "key": key,
        "evidence": evidence,
        "dataset": evidence.dataset,
        "observers": observers,
        "notice": words.notice(source),
        "answers": words.answers(source),
        "credits": words.credits_of(evidence.dataset["licences"]) if pictures else [],
        "headline": headline(evidence, observers),
        "themes": themes(evidence, observers),
        "table": main_table(evidence),
        "levels": _levels(evidence, slots),
        "reliability": _reliability(evidence, slots, observers),
        "doubt": _doubt(evidence, slots),
        "maps": maps,
        "gallery": gallery(evidence, album, observers),
        "neighbourhoods": neighbourhoods(evidence, album),
        "thumbnails": album.thumbnails(),
        "slots": slots,
        "side": SIDE,
        "half": round(maps.radius * 0.86, 1) if maps else 0,
        "grey": GROUP_COLOURS,
        "bins": figures.BINS,
        "dots": figures.DOTS,
        "scores": all_scores(evidence),
        "comparisons": all_comparisons(evidence),
        **_identity(evidence),
        **_script(),
    }


def _script() -> dict[str, Any]:
    """Return the page's one script, and its hash for the content security policy: no other may run."""
    text = (Path(__file__).parent / "hover.js").read_text()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": f"sha256-{digest}"}  # noqa: S704


def _identity(evidence: Evidence) -> dict[str, Any]:
    run = evidence.run
    told = {"dataset", "data", "models", "seed", "versions"}
    rest = {name: value for name, value in sorted(run.items()) if name not in told}
    return {
        "run": run,
        "models": {model: run.get("models", {}).get(model, {}) for model in evidence.models},
        "similarities": sorted({score.similarity for score in evidence.results.scores}),
        "rest": json.dumps(rest, indent=2, sort_keys=True, ensure_ascii=False) if rest else "",
    }


def _levels(evidence: Evidence, slots: dict[str, int]) -> list[PanelSet]:
    found = []
    for split in evidence.splits("agreement.all"):
        panels = [panel for level in _LEVELS if (panel := _level(evidence, slots, split, f"agreement.{level}"))]
        found.append(PanelSet(split, panels))
    return found


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
    values = [value for bins in drawn.values() for some in bins.values() for one in some for value in (one.x, one.low)]
    span = (max(0.0, np.floor(min(values) * 10) / 10), 1.02) if values else (0.0, 1.0)
    panels = []
    for place, bins in drawn.items():
        parts = [f"{name} {_said(evidence, place, f'ece.{name}')}" for name in ("before", "after")]
        note = f"error, %: {', '.join(parts)} · n\u00a0{words.count(sum(one.n for one in bins['after']))}"
        steps = "; ".join(f"{one.x:.2f} → {one.y:.2f}" for one in bins["after"])
        about = f"Reliability of {place.label} against {observers}, confidence → share once fitted: {steps}. {note}."
        panels.append(Panel(place.label, note, figures.reliability(bins, slots[place.model], span, about)))
    return panels


def _doubt(evidence: Evidence, slots: dict[str, int]) -> list[Panel]:
    timed = {place: evidence.choices[place] for place in evidence.places if place in evidence.choices}
    timed = {place: choices for place, choices in timed.items() if np.isfinite(choices.response_time).sum() > 2}
    if not timed:
        return []
    seconds = np.concatenate([choices.response_time[np.isfinite(choices.response_time)] for choices in timed.values()])
    low, high = np.percentile(seconds, [1, 99])
    room = 0.08 * (high - low) or 0.1
    panels = []
    for place, choices in timed.items():
        rows = np.isfinite(choices.response_time)
        note = f"ρ {_said(evidence, place, 'entropy_rt.spearman')} · n\u00a0{words.count(int(rows.sum()))}"
        about = f"Response time in seconds against the entropy of {place.label}: rank correlation {note}."
        svg = figures.doubt(
            entropy_of(choices)[rows], choices.response_time[rows], slots[place.model], (low - room, high + room), about
        )
        panels.append(Panel(place.label, note, svg))
    return panels


def entropy_of(choices: Choices) -> np.ndarray:
    """Return the entropy of the model's choice at the fitted temperature, in nats, (n,)."""
    from scipy.special import entr

    return np.asarray(entr(choices.after.astype(np.float64)).sum(axis=1))


def _said(evidence: Evidence, place: Place, stem: str) -> str:
    score = evidence.score(place, stem, HELDOUT)
    how = words.measure(stem)
    return f"{how.number(score.value)} {how.interval(score.low, score.high)}" if score else "not scored"

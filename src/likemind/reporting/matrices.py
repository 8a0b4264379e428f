"""Which pairs are alike: people's ratings beside each model, or groups of items where there are no ratings."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from likemind.choice import PAIRS
from likemind.evaluation.rsa import averaged, dissimilarities
from likemind.reporting import words
from likemind.reporting.evidence import HELDOUT, groups_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.reporting.evidence import Choices, Evidence, Place

SIDE = 480.0
MOVES = 10
MOST_GROUPS = 10
RAMP = ("#10284a", "#1f5f8b", "#4d9fb0", "#a9d1b8", "#f4f0e0")
_FEWEST_PAIRS = 10
_LONGEST_NAME = 14


@dataclass(frozen=True)
class Panel:
    """One matrix: whose, the number it is read with, the figure, and its ranks (see ``_hex``)."""

    title: str
    note: str
    svg: Markup
    ranks: str


@dataclass(frozen=True)
class Move:
    """A pair whose place among all pairs changed: percentiles of dissimilarity, 0 the most alike."""

    pair: tuple[str, str]
    people: int
    before: int
    after: int


@dataclass(frozen=True)
class Matrices:
    """The matrices of one data set of ratings.

    Attributes:
        name: Of the data set.
        said: Whose the ratings are, for captions.
        names: Of the items, in the order of the rows.
        panels: People first, then the models.
        moves: The pairs that moved furthest from before to after.
        columns: In proportion, how wide the panels are.
        indent: Share of the first that names take.
    """

    name: str
    said: str
    names: list[str]
    panels: list[Panel]
    moves: list[Move]
    columns: str
    indent: str


def draw_matrices(evidence: Evidence) -> list[Matrices]:
    """Draw the matrices of every data set of ratings that has at least three items of the evaluation set."""
    places = [place for place in evidence.pair if place in evidence.embeddings]
    found = [_matrices(evidence, name, places) for name in evidence.data.description.ratings if places]
    return [one for one in found if one is not None]


def _matrices(evidence: Evidence, name: str, places: Sequence[Place]) -> Matrices | None:
    ratings = evidence.data.ratings(name)
    if len(ratings) <= 2:
        return None
    order = leaves(ratings.dissimilarities)
    names = [_shown_name(evidence, ratings.items[row]) for row in order]
    who = words.OBSERVERS.get(ratings.source, ratings.source)
    titles = [who[0].upper() + who[1:], *(place.label for place in places)]
    notes = [f"n\u00a0{len(names)} items · {words.source_name(ratings.source).replace('answers', 'ratings')}"]
    matrices = [ratings.dissimilarities]
    for place in places:
        matrices.append(dissimilarities(averaged(evidence.embeddings[place], evidence.data, ratings.items)))
        score = evidence.score_at(place, f"{name}/inside", "rsa.spearman")
        how = words.measure("rsa")
        told = f"{how.number(score.value)} {how.interval(score.low, score.high)}" if score else "not scored"
        notes.append(f"Spearman’s ρ with the ratings {told}")
    ranked = [percentiles(matrix)[np.ix_(order, order)] for matrix in matrices]
    labelled = _labels(names)
    panels = [
        Panel(title, note, _draw(ranks, labelled if not at else _Labels("", 0.0), f"{title}: {note}"), _hex(ranks))
        for at, (title, note, ranks) in enumerate(zip(titles, notes, ranked, strict=True))
    ]
    columns = " ".join([f"{SIDE + labelled.width:.0f}fr", *[f"{SIDE:.0f}fr"] * len(places)])
    indent = f"{100 * labelled.width / (SIDE + labelled.width):.1f}%"
    return Matrices(name, _said(ratings.source), names, panels, _moves(names, ranked), columns, indent)


def _said(source: str) -> str:
    return words.answers(source).replace("Answers", "Ratings")


def _shown_name(evidence: Evidence, name: str) -> str:
    return evidence.item_of[name].name if name in evidence.item_of else name


def leaves(matrix: np.ndarray) -> np.ndarray:
    """Return an order of the rows in which those lie together that hierarchical clustering joins, (m,)."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

    apart = matrix[np.triu_indices(len(matrix), 1)]
    return np.asarray(leaves_list(optimal_leaf_ordering(linkage(apart, "average"), apart)))


def percentiles(matrix: np.ndarray) -> np.ndarray:
    """Return the rank of each pair among all pairs, from 0 (the most alike) to 100; the diagonal is 0.

    Shapes:
        matrix: (m, m), symmetric, m ≥ 3.
    """
    from scipy.stats import rankdata

    rows, columns = np.triu_indices(len(matrix), 1)
    ranks = (rankdata(matrix[rows, columns]) - 1) / (len(rows) - 1) * 100
    found = np.zeros(matrix.shape)
    found[rows, columns] = found[columns, rows] = ranks
    return found


def _moves(names: Sequence[str], ranked: Sequence[np.ndarray]) -> list[Move]:
    if len(ranked) < 3:
        return []
    people, before, after = ranked
    rows, columns = np.triu_indices(len(names), 1)
    far = np.argsort(-np.abs(after - before)[rows, columns], kind="stable")[:MOVES]
    return [
        Move((names[a], names[b]), *(round(float(matrix[a, b])) for matrix in (people, before, after)))
        for a, b in zip(rows[far], columns[far], strict=True)
    ]


def _hex(ranks: np.ndarray) -> str:
    """Return the upper triangle row by row, two hexadecimal digits a pair, for the page's script."""
    return bytes(np.rint(ranks[np.triu_indices(len(ranks), 1)]).astype(np.uint8)).hex()


@dataclass(frozen=True)
class _Labels:
    """Names beside the rows, as SVG, and how much room they take."""

    svg: str
    width: float


def _labels(names: Sequence[str]) -> _Labels:
    """Write the names beside their rows; many of them in two columns, or every so many of them, to stay readable."""
    step = SIDE / len(names)
    columns = 1 if len(names) <= 24 else 2
    every = max(1, -(-len(names) // 60))
    size = min(15.0, 0.92 * step * columns * every)
    short = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names]
    widths = [max((len(name) for name in short[at :: columns * every]), default=0) * size * 0.62 for at in (0, every)]
    inner = widths[0] + 10
    width = inner + (widths[1] + 8 if columns > 1 else 0)
    parts = []
    for row in range(0, len(names), every):
        y, outer = (row + 0.5) * step, columns > 1 and row // every % 2 == 1
        x = width - inner - 4 if outer else width - 6
        if outer:
            parts.append(f'<path d="M{x + 3:.1f} {y:.1f}H{width - 2:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}">{escape(short[row])}</text>')
    return _Labels(f'<g class="names" aria-hidden="true">{"".join(parts)}</g>', width)


def _draw(ranks: np.ndarray, labels: _Labels, about: str) -> Markup:
    """Draw one matrix as a small picture, stretched without blur; the diagonal is left out."""
    wide, start = SIDE + labels.width, labels.width
    return Markup(  # noqa: S704
        f'<svg class="matrix" viewBox="0 0 {wide:.1f} {SIDE:.0f}" role="img" tabindex="0" aria-label="'
        f'{escape(about)}">{labels.svg}<image href="{_picture(ranks)}" x="{start:.1f}" width="{SIDE:.0f}" '
        f'height="{SIDE:.0f}" preserveAspectRatio="none"/><rect class="at" width="{SIDE / len(ranks):.3f}" '
        f'height="{SIDE / len(ranks):.3f}"/></svg>'
    )


def _picture(ranks: np.ndarray) -> str:
    from PIL import Image

    colours = ramp(ranks / 100)
    solid = np.full((*ranks.shape, 1), 255, dtype=np.uint8)
    solid[np.diag_indices(len(ranks))] = 0
    sink = io.BytesIO()
    Image.fromarray(np.concatenate([colours, solid], axis=2), "RGBA").save(sink, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def ramp(shares: np.ndarray) -> np.ndarray:
    """Return colours from the ramp's first (0, alike) to its last (1, unlike), (..., 3) uint8."""
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in RAMP], dtype=float)
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.rint(np.interp(shares, places, stops[:, k])) for k in range(3)], axis=-1).astype(np.uint8)


@dataclass(frozen=True)
class GroupCell:
    """How often a pair of these groups is taken for the alike one, in per cent; with its colours, "" where unknown."""

    value: str
    paper: str
    ink: str


@dataclass(frozen=True)
class GroupTable:
    """One table of groups by groups."""

    title: str
    rows: list[list[GroupCell]]


@dataclass(frozen=True)
class Groups:
    """Tables of groups by groups: the observers', before and after."""

    names: list[str]
    tables: list[GroupTable]
    n: int


def draw_groups(evidence: Evidence, observers: str) -> Groups | None:
    """Tabulate choices by groups; None without choices or with fewer than three groups or more than ten."""
    places = [place for place in evidence.pair if place in evidence.choices]
    items = evidence.data.select(HELDOUT)
    names = groups_of(items, MOST_GROUPS + 1)
    if not places or not 3 <= len(names) <= MOST_GROUPS:
        return None
    first = evidence.choices[places[0]]
    shares = {observers[0].upper() + observers[1:]: _by_group(evidence, first, first.people, names)}
    for place in places:
        choices = evidence.choices[place]
        picked = np.where(choices.choice[:, None] < 0, 1 / 3, np.arange(3) == choices.choice[:, None])
        shares[place.label] = _by_group(evidence, choices, picked, names)
    top = max((float(np.nanmax(table)) for table in shares.values() if np.isfinite(table).any()), default=1.0) or 1.0
    tables = [
        GroupTable(title, [[_cell(value, top) for value in row] for row in table]) for title, table in shares.items()
    ]
    return Groups(names, tables, len(first))


def _by_group(evidence: Evidence, choices: Choices, chosen: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the mean share of each pair of groups, NaN where there are under ten such pairs, (g, g)."""
    place = {name: row for row, name in enumerate(names)}
    group = np.array([[place.get(evidence.item_of[name].group, -1) for name in row] for row in choices.items])
    total, number = np.zeros((2, len(names), len(names)))
    for pair, (a, b) in enumerate(PAIRS):
        known = (group[:, a] >= 0) & (group[:, b] >= 0)
        for one, other in ((a, b), (b, a)):
            cells = (group[known, one], group[known, other])
            np.add.at(total, cells, chosen[known, pair])
            np.add.at(number, cells, 1.0)
    number[np.diag_indices(len(names))] /= 2
    total[np.diag_indices(len(names))] /= 2
    return np.where(number >= _FEWEST_PAIRS, total / np.maximum(number, 1), np.nan)


def _cell(value: float, top: float) -> GroupCell:
    if np.isnan(value):
        return GroupCell("–", "", "")
    colour = ramp(np.asarray(1 - value / top))
    return GroupCell(f"{100 * value:.0f}", "#" + bytes(colour).hex(), "#000000" if _light(colour) else "#ffffff")


def _light(colour: np.ndarray) -> bool:
    """Whether black is read more easily on it than white (relative luminance of WCAG 2)."""
    share = colour / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return bool(linear @ np.array([0.2126, 0.7152, 0.0722]) > 0.179)

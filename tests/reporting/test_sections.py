"""The sections that say what likeness costs, what people find alike, what lies together, and what the run was."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from likemind.artifacts import Artifact
from likemind.errors import LikemindError
from likemind.evaluation.rsa import averaged, dissimilarities
from likemind.reporting.clusters import contact_sheet
from likemind.reporting.evidence import load_evidence
from likemind.reporting.examples import neighbourhoods
from likemind.reporting.figures import slots_of
from likemind.reporting.frontier import draw_frontier
from likemind.reporting.identity import made
from likemind.reporting.maps import draw_maps
from likemind.reporting.matrices import draw_groups, draw_matrices, leaves, percentiles, ramp
from likemind.reporting.report import report
from likemind.reporting.thumbnails import Album
from likemind.reporting.verdicts import headline, themes
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.reporting.evidence import Evidence
    from likemind.reporting.frontier import Frontier

    from .conftest import World


@pytest.fixture
def people(world: World) -> Evidence:
    """A model of people's answers, with some of people's own, and few-shot on another data set."""
    world.source, world.people, world.models = "human_model", True, ["base", "control", "aligned"]
    return load_evidence(world.write())


def _frontier(world: World) -> Frontier | None:
    evidence = load_evidence(world.write())
    return draw_frontier(evidence, slots_of(evidence.models))


def test_frontier_holds_every_candidate_and_marks_the_shipped(world: World) -> None:
    found = _frontier(world)
    assert found is not None
    assert [one.kind for one in found.candidates] == ["backbone", "mix", "head"] * 2
    assert [one.shipped for one in found.candidates] == [False, True, False, False, False, False]
    assert found.shipped.cells == ["mix", "1", "0.5", "47.0", "59.0"]
    assert (found.max_loss, found.kept, found.control) == (0.5, 3, True)
    assert "mix at α 1: 47.0 and 59.0" in found.svg
    assert found.svg.count(">shipped<") == 1


@pytest.mark.parametrize("missing", ["few-shot", "student"])
def test_frontier_is_left_out_where_nothing_was_measured(world: World, page: Callable[..., str], missing: str) -> None:
    world.small("base", "aligned" if missing == "few-shot" else "teacher").few = None
    assert _frontier(world) is None
    text = page("other", pictures=False)
    assert 'id="retention"' not in text
    assert "#retention" not in text


def test_frontier_without_a_control(world: World) -> None:
    world.models = ["base", "aligned"]
    found = _frontier(world)
    assert found is not None
    assert not found.control


def test_matrices_are_ranks_of_what_was_scored(people: Evidence) -> None:
    (found,) = draw_matrices(people)
    ratings = people.data.ratings("rated")
    assert sorted(found.names) == sorted([*(f"kind {k}" for k in range(6)), people.data.items[0].name])
    order = leaves(ratings.dissimilarities)
    after = people.after
    assert after is not None
    rows = averaged(people.embeddings[after], people.data, ratings.items)
    for panel, matrix in ((found.panels[0], ratings.dissimilarities), (found.panels[2], dissimilarities(rows))):
        wanted = percentiles(matrix)[np.ix_(order, order)][np.triu_indices(7, 1)]
        assert list(bytes.fromhex(panel.ranks)) == np.rint(wanted).astype(int).tolist()
    assert re.fullmatch(r"Spearman’s ρ with the ratings 0\.\d\d \[0\.\d\d, 0\.\d\d\]", found.panels[2].note)
    assert found.panels[0].note == "n\u00a07 items · ratings from people"
    assert len(found.moves) == 10
    moved = [abs(move.after - move.before) for move in found.moves]
    assert all(one >= other - 1 for one, other in pairwise(moved))


def test_percentiles_keep_order_and_ends() -> None:
    matrix = np.array([[0, 3, 1], [3, 0, 2], [1, 2, 0]], dtype=float)
    assert percentiles(matrix).tolist() == [[0, 100, 0], [100, 0, 50], [0, 50, 0]]


def test_leaves_put_together_what_is_joined() -> None:
    rows = np.array([0.0, 9.0, 0.1, 9.1, 0.2])
    order = leaves(np.abs(rows[:, None] - rows))
    assert sorted(order[:3].tolist()) in ([0, 2, 4], [0, 1, 3]) or sorted(order[2:].tolist()) == [0, 2, 4]


def test_groups_stand_in_for_ratings(world: World, page: Callable[..., str]) -> None:
    world.groups = 3
    evidence = load_evidence(world.write())
    found = draw_groups(evidence, "simulated observers")
    assert found is not None
    assert [table.title for table in found.tables] == ["Simulated observers", "base · backbone", "aligned · shipped"]
    choices = evidence.choices[evidence.before]
    place = {name: row for row, name in enumerate(found.names)}
    shares: dict[tuple[int, int], list[float]] = {}
    for items, shared in zip(choices.items, choices.people, strict=True):
        for pair, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
            one, other = sorted((place[evidence.item_of[items[a]].group], place[evidence.item_of[items[b]].group]))
            shares.setdefault((one, other), []).append(shared[pair])
    for (one, other), values in shares.items():
        shown = f"{100 * np.mean(values):.0f}" if len(values) >= 10 else "–"
        assert found.tables[0].rows[one][other].value == found.tables[0].rows[other][one].value == shown
    world.models, world.only = ["base", "aligned"], "agreement.all"
    assert page("again", pictures=False).count('class="heat"') == 3


def test_items_without_a_group_share_none(world: World, page: Callable[..., str]) -> None:
    world.group, world.groups, world.models, world.showcase = "", 4, ["base", "aligned"], ["item-01"]
    evidence = load_evidence(world.write())
    album = Album(evidence.data, pictures=False)
    found = draw_groups(evidence, "simulated observers")
    assert found is not None
    assert "" not in found.names
    assert all(not shown.same_group for ring in neighbourhoods(evidence, album)[0].rings for shown in ring.neighbours)
    drawn = draw_maps(evidence, album)
    assert drawn is not None
    assert ("" not in drawn.groups, drawn.others) == (True, True)
    text = page("again", pictures=False)
    assert "()</title>" not in text
    assert "<b>no group</b>: toy 1, " in text
    assert " in the group<" not in text


def test_two_groups_are_no_table(world: World) -> None:
    assert draw_groups(load_evidence(world.write()), "simulated observers") is None


def test_sheet_shows_members_that_the_data_have(world: World) -> None:
    evidence = load_evidence(world.write())
    found = contact_sheet(evidence, Album(evidence.data, pictures=False), world.labels())
    assert found is not None
    assert (found.total, found.images) == (6, 28)
    assert [cluster.size for cluster in found.clusters] == [5, 5, 5, 5, 5]
    assert [cluster.known for cluster in found.clusters] == [5, 5, 5, 5, 4]
    assert [cluster.number for cluster in found.clusters] == [0, 1, 2, 3, 4]
    assert found.clusters[1].name == "animals"  # items 5, 7, 9 of five
    shown = {member.item.id for member in found.clusters[1].members}
    assert shown == {f"item-{k:02d}" for k in range(5, 10)}


def test_pictures_names_are_in_the_text_too(full_page: str) -> None:
    sheet = full_page.partition('id="clusters"')[2].partition("</section>")[0]
    assert ">toy 5, " in sheet or ", toy 5" in sheet
    maps = full_page.partition('id="maps"')[2].partition("</section>")[0]
    assert "<b>animals</b>: toy 1, toy 11, " in maps


def test_sheet_of_strangers_is_left_out(world: World, page: Callable[..., str]) -> None:
    with Artifact(world.path / "strange", verb="label", config={}, inputs={}) as work:
        write_table(work.path / "clusters.parquet", pa.table({"id": ["x", "y", "z"], "cluster": [0, 0, 0]}))
    world.small("base")
    text = page(labels=world.path / "strange", pictures=False)
    assert 'id="clusters"' not in text
    assert "#clusters" not in text


def test_labels_change_the_page_and_must_be_labels(world: World) -> None:
    results, out = world.small("base").write(), world.path / "page.html"
    without = report(results, out=out, pictures=False).read_text()
    one = report(results, out=out, labels=world.labels(), pictures=False).read_text()
    other = report(results, out=out, labels=world.labels("more", strangers=9), pictures=False).read_text()
    assert len({without, one, other}) == 3
    with pytest.raises(LikemindError, match="was made by `likemind evaluate`: give an output of `likemind label`"):
        report(results, out=out, labels=results)


def test_recorded_answers_and_other_tasks_have_verdicts(people: Evidence) -> None:
    found = {theme.name: theme.verdicts for theme in themes(people, "a model of people")}
    claims = [verdict.claim for verdict in found["Recorded answers"]]
    assert claims == [
        "Picks the odd one out that people picked, more often than the base model, on asked",
        "Picks the odd one out that people picked, more often than the control, on asked",
        "Finds alike what people rated alike, more than the base model, on rated",
        "Finds alike what people rated alike, more than the control, on rated",
    ]
    assert all("answers from people" in verdict.note for verdict in found["Recorded answers"])
    assert all("answers from a model of people" in verdict.note for verdict in found["Likeness"])
    assert [verdict.claim for verdict in found["New classes"]] == [
        f"Better at few-shot learning ({shots} a class) than the base model, on strange, unseen classes"
        for shots in ("1 picture", "5 pictures")
    ]


def test_answers_in_short(people: Evidence) -> None:
    found = headline(people, "a model of people").answers
    assert [(one.question, one.answer) for one in found] == [
        ("Closer to a model of people?", "Yes"),
        ("Closer to what people answered?", "Yes"),
        ("Closer to what people rated?", "Yes"),
        ("Better from one picture?", "No difference seen"),
        ("Better from five pictures?", "No difference seen"),
    ]
    assert found[0].amount == "+2.9 points of agreement"
    assert found[0].interval == "[2.1, 3.7]"
    assert "answers from people" in found[1].note


def test_page_of_people_tells_sources_apart(people_page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", people_page))
    assert "What people themselves answered is marked “answers from people”." in text
    assert "Answers matched on asked, % n 60 answers · no chance · no ceiling · answers from people" in text.replace(
        "%n", "% n"
    )
    assert "5-shot on strange, unseen classes, %" in text
    assert "few-shot is tried on strange, unseen classes" in text
    assert "Ratings: recorded from people." in text
    for section in ("doubt", "groups"):
        assert f'id="{section}"' not in people_page
    assert people_page.count('class="matrix"') == 3


def test_identity_tells_how_models_were_made(world: World, page: Callable[..., str]) -> None:
    facts = {model.name: dict(model.facts) for model in made(load_evidence(world.write()))}
    assert facts["aligned"]["made by"] == "likemind align, key abababababab…"
    assert facts["aligned"]["recipe"] == "small, but steps 90"
    assert facts["aligned"]["shipped"] == "mix, α 1, β 0.5"
    assert facts["aligned"]["settings"] == "control no, seed 3"
    assert facts["base"] == {"folder": "runs/base", "layers": "backbone", "backbone": "timm/tiny"}
    world.small("aligned")
    body = page("again", pictures=False).partition('id="run"')[2]
    for told in ("likemind align, key abab", "small, but steps 90", "numpy 2.0", "Apache-2.0"):
        assert told in body


def test_results_of_few_shot_alone_have_a_page(world: World, page: Callable[..., str]) -> None:
    world.small("base", "aligned").only = "fewshot"
    text = page(pictures=False)
    for section in ("levels", "calibration", "doubt", "disagreements", "matrices"):
        assert f'id="{section}"' not in text
        assert f"#{section}" not in text
    assert "<h1>The aligned model and the base model, side by side</h1>" in text


def _variables() -> list[dict[str, str]]:
    from importlib.resources import files

    css = (files("likemind.reporting") / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks[:2]]


def _contrast(one: Any, other: Any) -> float:
    def light(colour: Any) -> float:
        share = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ np.array([0.2126, 0.7152, 0.0722]))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_shapes_stand_out(scheme: int) -> None:
    colours = _variables()[scheme]
    for text in ("ink", "muted", "good", "bad", "accent"):
        assert min(_contrast(colours[text], colours[paper]) for paper in ("paper", "card")) >= 4.5, text
    assert _contrast(colours["ink"], colours["track"]) >= 4.5
    shapes = [name for name in colours if re.fullmatch(r"[mg]\d", name)]
    assert len(shapes) == 17
    for shape in shapes:
        assert min(_contrast(colours[shape], colours[paper]) for paper in ("paper", "card")) >= 3, shape


def test_numbers_on_the_ramp_can_be_read() -> None:
    from likemind.reporting.matrices import _light

    for share in np.linspace(0, 1, 101):
        colour = ramp(np.asarray(share))
        ink = "#000000" if _light(colour) else "#ffffff"
        assert _contrast("#" + bytes(colour).hex(), ink) >= 4.5


def test_thumbnails_of_photographs_are_small(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_images

    from likemind.images.collection import open_images
    from likemind.reporting.thumbnails import LARGE, SMALL, _encode

    for number, pixels in enumerate(load_sample_images().images):
        Image.fromarray(pixels[:300, :300]).save(tmp_path / f"{number}.png")
    photographs = open_images(tmp_path)
    small, large = (max(len(_encode(photographs, at, size)) for at in range(2)) for size in (SMALL, LARGE))
    on_maps, elsewhere = 700, 9 * 3 + 8 * 13 + 12 * 8
    assert on_maps * small + elsewhere * large < 4_000_000

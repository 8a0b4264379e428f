"""The verb: one file that stands alone, written only when something changed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from likemind.artifacts import Artifact
from likemind.errors import LikemindError
from likemind.evaluation.results import Results
from likemind.reporting.report import report

from .conftest import CREDIT, HOSTILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

_VOID = {"meta", "br", "col", "link", "img", "input"}


class _Outline(HTMLParser):
    """Checks that tags are closed in order, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.unnamed: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag not in _VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.scripts += tag == "script"
        self.ids += [named["id"]] if "id" in named else []
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        if tag == "svg" and not named.get("aria-label") and named.get("aria-hidden") != "true":
            self.unnamed.append(str(named))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=["full_page", "people_page"])
def text(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))


def test_page_stands_alone(text: str) -> None:
    outline = _Outline(text)
    assert all(link.startswith(("#", "data:image/webp;base64,", "data:image/png;base64,")) for link in outline.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", text))
    assert not re.search(r"@import|<link|<iframe|<img", text)
    assert "default-src 'none'" in text


def test_page_is_sound(text: str) -> None:
    outline = _Outline(text)
    assert '<html lang="en">' in text
    assert outline.open == []
    assert not outline.unnamed
    assert len(set(outline.ids)) == len(outline.ids)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(deeper - one <= 1 for one, deeper in zip(outline.headings, outline.headings[1:], strict=False))


def test_hostile_names_are_text(world: World, page: Callable[..., str]) -> None:
    world.models = ["base", "aligned"]
    world.group = "</script><img src=x onerror=alert(2)> $x_1$"
    text = page()
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<img" not in text
    assert "tools &amp; &lt;b&gt;" in text
    assert _Outline(text).scripts == 1


def test_same_bytes_twice(world: World) -> None:
    world.models = ["base", "aligned"]
    results = world.write()
    one = report(results, out=world.path / "one.html").read_bytes()
    two = report(results, out=world.path / "two" / "deep.html").read_bytes()
    assert one == two


def test_unchanged_page_is_left(world: World) -> None:
    results = world.small("base", "aligned").write()
    out = report(results, out=world.path / "page.html")
    before = out.stat().st_mtime_ns
    assert report(results, out=out) == out
    assert out.stat().st_mtime_ns == before


def test_own_page_is_replaced(world: World) -> None:
    world.models, world.only = ["base"], "agreement.all"
    results = world.write()
    out = world.path / "page.html"
    with_pictures = report(results, out=out).read_text()
    without = report(results, out=out, pictures=False).read_text()
    assert "data:image" in with_pictures
    assert "data:image" not in without


def test_foreign_file_is_kept_unless_told(world: World) -> None:
    results = world.small("base", "aligned").write()
    out = world.path / "thesis.html"
    out.write_text("three years of work")
    with pytest.raises(LikemindError, match=r"thesis\.html is not a report of ours.*--overwrite"):
        report(results, out=out)
    assert out.read_text() == "three years of work"
    assert "likemind-key" in report(results, out=out, overwrite=True).read_text()


def test_folder_is_refused(world: World) -> None:
    with pytest.raises(LikemindError, match=r"is a folder: give the page's own name"):
        report(world.write(), out=world.path)


def test_unwritable_place_is_named(world: World) -> None:
    results = world.small("base").write()
    (world.path / "file").write_text("")
    with pytest.raises(LikemindError, match=r"cannot be written .* choose another --out"):
        report(results, out=world.path / "file" / "page.html")


def test_no_pictures_needs_no_image_files(world: World) -> None:
    world.models = ["base"]
    results = world.write()
    (world.path / "results-data" / "images.parquet").unlink()
    with pytest.raises(LikemindError, match=r"images\.parquet does not exist.*--no-pictures"):
        report(results, out=world.path / "page.html")
    assert not list(world.path.glob("page.html*"))
    text = report(results, out=world.path / "page.html", pictures=False).read_text()
    assert "data:" not in text.replace("img-src data:", "")
    assert "<image" not in text
    assert CREDIT not in text.partition('id="run"')[0]
    assert "toy 5" in text


def test_lost_data_are_named(world: World) -> None:
    results = world.write()
    (world.path / "results-data" / "dataset.json").unlink()
    with pytest.raises(LikemindError, match=r"results-data.*is no longer an evaluation folder: put it back"):
        report(results, out=world.path / "page.html")


def test_other_artifacts_are_refused(world: World) -> None:
    with Artifact(world.path / "features", verb="embed", config={}, inputs={}) as work:
        (work.path / "x").write_text("")
    with pytest.raises(LikemindError, match=r"made by `likemind embed`"):
        report(world.path / "features", out=world.path / "page.html")


def test_verdicts_and_numbers_agree_with_the_results(world: World, full_page: str) -> None:
    text = _words(full_page)
    assert "Closer to simulated observers than the base model: yes, +2.9 points of agreement [2.1, 3.7]" in text
    few = "Better at few-shot learning (5 pictures a class) than the base model"
    assert f"{few}: no difference seen, +0.4 points of accuracy [−1.2, 2.0]" in text
    assert "n 60 triplets · simulated answers · shipped against backbone" in text
    for score in Results.load(world.write()).scores:
        if "agreement.all" in score.metric:
            value, low, high = (f"{100 * number:.1f}" for number in (score.value, score.low, score.high))
            assert f"{value}[{low}, {high}]" in text
    assert "chance 33.3 · ceiling 67.1" in text


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("better", "The aligned model is closer to people than the base model"),
        ("worse", "The aligned model is further from people than the base model"),
        ("no difference seen", "The aligned model is no closer to people than the base model, as far as can be seen"),
    ],
)
def test_title_is_the_answer(world: World, page: Callable[..., str], verdict: str, title: str) -> None:
    world.small("base", "aligned")
    world.verdict, world.source = verdict, "human"
    assert f"<h1>{title}</h1>" in page(pictures=False)


@pytest.mark.parametrize(
    ("source", "notice"),
    [
        ("human", None),
        ("human_model", "come from a model of people"),
        ("simulated", "Nothing on it is a claim about people"),
    ],
)
def test_source_is_said(world: World, page: Callable[..., str], source: str, notice: str | None) -> None:
    world.source, world.models = source, ["base", "aligned"]
    text = page(pictures=False)
    assert ('class="notice"' in text) == (notice is not None)
    assert notice is None or notice in text
    captions = re.findall(r"<figcaption>(.*?)</figcaption>|<p class=\"caption\"[^>]*>(.*?)</p>", text, flags=re.DOTALL)
    words = {
        "human": "recorded from people",
        "human_model": "from a model of people",
        "simulated": "no claim about people",
    }
    assert len(captions) == 12
    assert all(words[source] in "".join(caption) for caption in captions)


def test_figures_are_all_there(full_page: str) -> None:
    text = full_page
    assert text.count('class="plot"') == 2 * 4 + 1 + 8 + 8
    assert text.count('class="map"') == 2
    assert text.count('class="pt ') == 2 * 18
    assert text.count("<symbol ") == text.count("data:image/webp") <= 24


def test_credit_stands_by_every_picture(full_page: str) -> None:
    text = full_page
    for section in ("maps", "disagreements", "neighbours", "clusters"):
        body = text.partition(f'id="{section}"')[2].partition("</section>")[0]
        assert "<use" in body
        assert f"Pictures: {CREDIT}." in body


def test_one_model_alone(world: World, page: Callable[..., str]) -> None:
    world.models = ["base"]
    text = page()
    assert "One model was evaluated" in text
    assert "How near is “base” to simulated observers?" in text
    assert 'id="disagreements"' not in text
    assert text.count('class="map"') == 1
    assert _Outline(text).open == []


def test_two_models_without_a_control(world: World, page: Callable[..., str]) -> None:
    world.small("base", "aligned")
    text = page(pictures=False)
    assert "There is no control here" in text
    assert "than the teacher" not in text


def test_no_response_times(world: World, page: Callable[..., str]) -> None:
    world.models = ["base"]
    world.seconds = False
    assert 'id="doubt"' not in page(pictures=False)


def test_showcase_falls_back_to_hash(world: World, page: Callable[..., str]) -> None:
    world.models = ["base"]
    world.showcase = []
    text = page(pictures=False)
    assert "The first held-out items by the hash of their ids" in text
    assert text.count('class="card near') == 8


def test_a_verdict_that_does_not_stand_among_all_says_so(page: Callable[..., str], world: World) -> None:
    world.small("base", "aligned")
    assert "not when all metrics are looked at together" not in page("plain")
    world.corrected = "better"
    assert "not when all metrics are looked at together" not in page("stands")
    world.corrected = "no difference seen"
    told = page("falls")
    short, _, long = told.partition('id="verdicts"')
    assert "not when all metrics are looked at together" in short
    assert "not when all metrics are looked at together" in long
    assert "<td>better</td><td>no difference seen</td>" in told

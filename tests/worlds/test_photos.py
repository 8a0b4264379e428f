"""The photographs world, of a made-up pack, and of the real one where it is at hand."""

from __future__ import annotations

import hashlib
import io
import math
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from likemind.artifacts import read_run
from likemind.datasets.photographs import LICENCES
from likemind.errors import LikemindError
from likemind.images.collection import open_images
from likemind.triplets import write_table
from likemind.worlds import photos as module
from likemind.worlds.photos import (
    ALIKE,
    IMAGENET_OF,
    JUDGED_CALTECH,
    JUDGEMENTS,
    TAUGHT_CALTECH,
    TAUGHT_TINY,
    TRAINING_TINY,
    TRIALS,
    Photo,
    build_photos_world,
    model_answers,
    showcase,
    split_concepts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from likemind.datasets.evaluation_set import EvaluationSet, Split
    from likemind.triplets import Triplets

SMALL: dict[Split, int] = {"train": 400, "validation": 150, "heldout": 250}
CONCEPTS = [f"thing{k:02d}" for k in range(48)]
SHUT = ("n03271574", "n02123159")
"""Two of IMAGENET_OF: a ceiling fan, without a concept here, and a wild cat, which is ``thing00``."""

ANSWERS = [[0, 1, 2], [20, 3, 47], [5, 4, 44], [30, 31, 1], [46, 0, 45]]
RATED = [2, 47, 0, 33, 44, 5]


@dataclass
class Row:
    """A photograph of the made-up pack."""

    collection: str
    id: str
    class_name: str
    concept: str | None
    wnid: str = ""
    split: str = ""

    @property
    def name(self) -> str:
        return f"{self.collection}/{self.id}"

    @property
    def category(self) -> str:
        return self.concept or f"{self.collection}/{self.wnid or self.class_name}"


def pack_rows() -> list[Row]:
    """Concepts 0–29 have ImageNet classes, 24–39 Caltech's, 40–43 Tiny-ImageNet's only, 44–47 no photographs."""
    of_wnid = {"n02123159": CONCEPTS[0]} | {f"n1{k:07d}": CONCEPTS[k] for k in range(30)}
    of_wnid |= {f"n2{k:07d}": CONCEPTS[k] for k in range(3)}  # a concept's second class
    nameless = [*(f"n3{k:07d}" for k in range(5)), "n03271574"]
    rows = [
        Row("imagenet", f"{wnid}_x", f"name_of_{wnid}, another name", of_wnid.get(wnid), wnid)
        for wnid in (*of_wnid, *nameless)
    ]
    of_class = {"Faces": CONCEPTS[24]} | {f"class_{k}": CONCEPTS[k] for k in range(25, 40)}
    for name in (*of_class, "Faces_easy", "flamingo_head", "yin_yang", "okapi"):
        for n in range(12):
            split = "train" if n < 8 else "test"
            rows.append(Row("caltech101", f"{name}/image_{n:04d}", name, of_class.get(name), split=split))
    of_tiny = {wnid: of_wnid[wnid] for wnid in ("n02123159", *(f"n1{k:07d}" for k in range(16)))}
    of_tiny |= {f"n4{k:07d}": CONCEPTS[k] for k in range(40, 44)}
    for wnid in (*of_tiny, "n30000000", "n03271574"):
        for n in range(TRAINING_TINY + 6):
            split = "train" if n < TRAINING_TINY + 3 else "val"
            rows.append(Row("tiny", f"{wnid}_{n}", f"name_of_{wnid}", of_tiny.get(wnid), wnid, split))
    return rows


HEADER = (
    *("index", "uniqueID", "word", "wordnet_id", "bottom_up_category", "top_down_category_wordnet"),
    *("top_down_category_manual", "all_bottom_up_categories", "reference_image"),
)
ROWS = pack_rows()
BY_NAME = {row.name: row for row in ROWS}
MAPPED = sorted({row.concept for row in ROWS if row.concept and row.collection != "tiny"})
COLOUR = {row.name: (k % 251, k // 251 * 20, 99) for k, row in enumerate(ROWS)}


def picture(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def groups_of(k: int) -> dict[str, str]:
    """What the categories' columns say, and as what the first of them is to be read."""
    manual = ("animal", "vehicle", "", "")[k % 4]
    bottom_up = ("", "tool", "food, fruit", "")[k % 4]
    everything = "toy, tool" if k % 8 == 3 else ""
    return {"manual": manual, "bottom_up": bottom_up, "all": everything}


GROUP = {name: ("animal", "vehicle", "food", "toy" if k % 8 == 3 else "")[k % 4] for k, name in enumerate(CONCEPTS)}


def embedding() -> np.ndarray:
    return (np.random.default_rng(0).random((len(CONCEPTS), 6)) * 1.5).astype(np.float32)


def rdm() -> np.ndarray:
    places = np.random.default_rng(1).normal(size=(len(RATED), 3))
    apart: np.ndarray = np.linalg.norm(places[:, None] - places, axis=2)
    return apart


def make_pack(folder: Path) -> Path:
    things, photos = folder / "things", folder / "photos"
    things.mkdir(parents=True)
    photos.mkdir()
    lines = ["\t".join(HEADER)]
    for k, name in enumerate(CONCEPTS):
        said = groups_of(k)
        cells = [str(k), name, f"thing {k}", "", said["bottom_up"], "", said["manual"], said["all"], f"{name}_01b.jpg"]
        lines.append("\t".join(cells))
    (things / "concepts.tsv").write_text("\n".join(lines) + "\n")
    np.save(things / "vice_embedding.npy", embedding())
    np.save(things / "human_triplets_2171.npy", np.array(ANSWERS, dtype=np.int16))
    np.save(things / "rdm48.npy", rdm())
    np.save(things / "rdm48_rows.npy", np.array(RATED, dtype=np.int16))
    columns = {
        "imagenet": ("imagenet_sample", ("id", "wnid", "class_name", "things_id")),
        "caltech101": ("caltech101", ("id", "class_name", "things_id", "split")),
        "tiny": ("tiny_imagenet", ("id", "wnid", "class_name", "things_id", "split")),
    }
    for collection, (file, names) in columns.items():
        rows = [row for row in ROWS if row.collection == collection]
        texts = {name: [row.concept if name == "things_id" else getattr(row, name) for row in rows] for name in names}
        images = pa.array([picture(COLOUR[row.name]) for row in rows], pa.binary())
        table = {name: pa.array(values, pa.string()) for name, values in texts.items()}
        write_table(photos / f"{file}.parquet", pa.table(table | {"image": images}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_trials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TRIALS", SMALL)
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module", params=[1, 2, 3])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def world(pack: Path, seed: int, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return build_photos_world(tmp_path_factory.mktemp("world") / "data", data_dir=pack, seed=seed)


@pytest.fixture(scope="module")
def first(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    """The world of seed 0."""
    return build_photos_world(tmp_path_factory.mktemp("first") / "data", data_dir=pack)


def rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def training_ids(world: EvaluationSet) -> list[str]:
    return [str(name) for name in pq.read_table(world.path / "training.parquet", columns=["id"])["id"].to_pylist()]


def first_of_each(rows: list[Row], most: int, seed: int) -> set[str]:
    """The names of a category's first rows by hash."""
    kept = set()
    for category in {row.category for row in rows}:
        of_it = sorted((row.name for row in rows if row.category == category), key=lambda name: rank(seed, name))
        kept |= set(of_it[:most])
    return kept


def sides(seed: int, *, tiny: bool = True) -> dict[str, set[str]]:
    """Which photographs go where, written out: ``training``, and the items of each split."""
    ranked = sorted(MAPPED, key=lambda name: rank(seed, name))
    n = len(ranked)
    heldout, validation = set(ranked[: round(n / 4)]), set(ranked[round(n / 4) : round(0.4 * n)])
    rows = [row for row in ROWS if row.class_name not in ALIKE and (tiny or row.collection != "tiny")]
    taught = []
    for row in rows:
        unseen = row.concept in heldout | validation or (row.collection == "caltech101" and row.concept is None)
        if not unseen and row.wnid not in SHUT:
            taught.append(row)
    of = {name: [row for row in taught if row.collection == name] for name in ("imagenet", "caltech101", "tiny")}
    training = {row.name for row in of["imagenet"] + of["caltech101"]} | first_of_each(of["tiny"], TRAINING_TINY, seed)
    named = {name: [row for row in found if row.concept] for name, found in of.items()}
    train = {row.name for row in named["imagenet"]} | first_of_each(named["caltech101"], TAUGHT_CALTECH, seed)
    train |= first_of_each([row for row in named["tiny"] if row.name in training], TAUGHT_TINY, seed)
    held = {row.name for row in rows if row.concept in heldout and row.collection != "tiny"}
    held |= {row.name for row in rows if row.concept is None and row.collection == "caltech101"}
    shown = {row.name for row in rows if row.concept in validation and (row.collection != "tiny" or row.split == "val")}
    return {"training": training, "train": train, "validation": shown, "heldout": held}


# --- what goes where


def test_every_photograph_goes_where_its_concept_goes(world: EvaluationSet, seed: int) -> None:
    wanted = sides(seed)
    found = training_ids(world)
    assert len(found) == len(set(found))
    assert set(found) == wanted["training"]
    for split in ("train", "validation", "heldout"):
        assert {item.id for item in world.select(split)} == wanted[split]
        assert {BY_NAME[name].collection for name in wanted[split]} >= {"imagenet", "caltech101"}
    assert wanted["train"] < wanted["training"]


def test_no_concept_stands_on_two_sides(world: EvaluationSet) -> None:
    """Over all collections, students' pictures included; nor does a class of ImageNet's, with a concept or without."""
    for part in ("concept", "wnid"):
        split_of: dict[str, set[str]] = defaultdict(set)
        for name, split in [(name, "train") for name in training_ids(world)] + [(i.id, i.split) for i in world.items]:
            split_of[getattr(BY_NAME[name], part) or name].add(split)
        assert all(len(found) == 1 for found in split_of.values())
    assert {found for (found,) in split_of.values()} == {"train", "validation", "heldout"}


def test_what_shows_a_few_shot_class_is_in_no_training_picture(world: EvaluationSet) -> None:
    for name in training_ids(world):
        row = BY_NAME[name]
        assert row.class_name not in {*ALIKE, *IMAGENET_OF}
        assert row.wnid not in SHUT
    assert {wnid for wnids in IMAGENET_OF.values() for wnid in wnids} >= set(SHUT)
    assert not {BY_NAME[item.id].class_name for item in world.items} & set(ALIKE)


def test_held_out_tasks_are_of_caltech_classes_that_nothing_shows_in_training(world: EvaluationSet) -> None:
    few = world.select(fewshot="heldout")
    assert {item.split for item in few} == {"heldout"}
    assert {BY_NAME[item.id].collection for item in few} == {"caltech101"}
    assert {"caltech101/yin_yang", "caltech101/okapi"} < {item.category for item in few}
    trained = {BY_NAME[name].category for name in training_ids(world)} | {i.category for i in world.select("train")}
    assert not {item.category for item in few} & trained
    assert not {item.category for item in world.select(fewshot="validation")} & trained
    assert all(item.fewshot in ("", item.split) for item in world.items)
    wanted = [item.id for item in world.select("validation") if not item.id.startswith("imagenet/")]
    assert [item.id for item in world.select(fewshot="validation")] == wanted
    assert world.description.tasks == "caltech101/unseen"


def test_items_say_what_they_show(world: EvaluationSet) -> None:
    for item in world.items:
        row = BY_NAME[item.id]
        assert item.category == (row.concept or f"caltech101/{row.class_name}")
        assert item.group == (GROUP[row.concept] if row.concept else "")
        assert item.name == (
            f"thing {CONCEPTS.index(row.concept)}" if row.concept else row.class_name.replace("_", " ")
        )
    table = pq.read_table(world.path / "items.parquet")
    assert table.column_names == ["id", "name", "category", "group", "split", "fewshot"]


def test_pictures_are_those_of_the_pack(first: EvaluationSet) -> None:
    for images in (first.images(), open_images(first.path / "training.parquet")):
        for position in range(0, len(images), 7):
            assert images.read(position).getpixel((1, 2)) == COLOUR[images.ids[position]]
    assert sorted(first.images().ids) == sorted(item.id for item in first.items)


def test_without_tiny_imagenet(pack: Path, tmp_path: Path, seed: int) -> None:
    """It is not needed, and what the others' photographs do does not depend on it."""
    shutil.copytree(pack, tmp_path / "pack")
    (tmp_path / "pack/photos/tiny_imagenet.parquet").unlink()
    world = build_photos_world(tmp_path / "data", data_dir=tmp_path / "pack", seed=seed)
    wanted = sides(seed, tiny=False)
    assert set(training_ids(world)) == wanted["training"]
    for split in ("train", "validation", "heldout"):
        assert {item.id for item in world.select(split)} == wanted[split]
        assert len(world.judgements(split)) == SMALL[split]
        kept = {name for name in sides(seed)[split] if not name.startswith("tiny/")}
        assert kept == wanted[split]
    assert set(LICENCES) - set(world.description.licences) == {"Tiny-ImageNet photographs"}


# --- answers


@pytest.mark.parametrize("split", ["train", "validation", "heldout"])
def test_triplets_are_of_three_concepts_and_say_what_the_embedding_says(world: EvaluationSet, split: Split) -> None:
    """A picture of each, the distribution and the level all written out."""
    found = world.judgements(split)
    assert len(found) == SMALL[split]
    assert found.source == "human_model"
    assert found.choice is None
    assert found.probabilities is not None
    assert found.level is not None
    vice = embedding().astype(float)
    split_of = {item.id: item.split for item in world.items}
    for row, told, level in zip(found.indices, found.probabilities, found.level, strict=True):
        shown = [BY_NAME[found.items[k]] for k in row]
        assert {split_of[one.name] for one in shown} == {split}
        assert len({one.concept for one in shown}) == 3
        a, b, c = (CONCEPTS.index(one.concept or "") for one in shown)
        powers = [
            math.exp(sum(x * y for x, y in zip(vice[i], vice[j], strict=True))) for i, j in ((a, b), (a, c), (b, c))
        ]
        np.testing.assert_allclose(told, np.array(powers) / sum(powers), rtol=1e-6)
        groups = {GROUP[one.concept or ""] for one in shown}
        assert level == {1: "within_class", 2: "class_border", 3: "between_class"}[len(groups)]
    assert set(found.level) >= {"class_border", "between_class"}


def test_how_many_photographs_of_a_concept_are_judged(world: EvaluationSet) -> None:
    for split, most in (("train", TAUGHT_CALTECH), ("validation", JUDGED_CALTECH), ("heldout", JUDGED_CALTECH)):
        judged = [BY_NAME[name] for name in world.judgements(split).used_items]  # type: ignore[arg-type]
        cells = Counter((row.collection, row.concept) for row in judged)
        assert max(n for (collection, _), n in cells.items() if collection == "caltech101") == most
        tiny = [n for (collection, _), n in cells.items() if collection == "tiny"]
        assert max(tiny, default=0) == (TAUGHT_TINY if split == "train" else 0)


def photo(name: str, concept: int, group: str = "g") -> Photo:
    return Photo(name, name, f"c{concept}", group, "train", "", "imagenet", 0, concept)


def test_concepts_are_drawn_evenly_and_so_are_a_concepts_photographs() -> None:
    """However many photographs a concept has."""
    items = [photo(f"{concept}-{n}", concept) for concept in range(6) for n in range(concept + 1)]
    drawn = model_answers(items, embedding(), 6000, np.random.default_rng(0))
    shown = [drawn.items[k] for k in drawn.indices.reshape(-1)]
    by_concept = Counter(name.split("-")[0] for name in shown)
    assert all(abs(n - 3000) < 200 for n in by_concept.values())
    assert all(abs(n - 500) < 100 for name, n in Counter(shown).items() if name.startswith("5-"))
    places = Counter(
        (row.index(name), name) for row in [[drawn.items[k] for k in r] for r in drawn.indices] for name in row
    )
    assert all(abs(places[k, "0-0"] - 1000) < 130 for k in range(3))


def test_two_concepts_are_too_few() -> None:
    items = [photo("a", 3), photo("b", 3), photo("c", 4)]
    with pytest.raises(LikemindError, match="2 concepts with photographs are too few for triplets: give more"):
        model_answers(items, embedding(), 10, np.random.default_rng(0))


def test_peoples_own_answers_and_ratings(world: EvaluationSet) -> None:
    """Those about concepts with items, by the names of the concepts; the third of an answer is the odd one out."""
    shown = {BY_NAME[item.id].concept for item in world.items} - {None}
    usable = [[CONCEPTS[k] for k in row] for row in ANSWERS if all(CONCEPTS[k] in shown for k in row)]
    answers = world.answers("things2171")
    assert [[answers.items[k] for k in row] for row in answers.indices] == usable
    assert answers.odd_items == [row[2] for row in usable]
    assert answers.source == "human"
    assert 0 < len(usable) < len(ANSWERS)
    ratings = world.ratings("rdm48")
    kept = [k for k, row in enumerate(RATED) if CONCEPTS[row] in shown]
    assert list(ratings.items) == [CONCEPTS[RATED[k]] for k in kept]
    np.testing.assert_array_equal(ratings.dissimilarities, rdm()[np.ix_(kept, kept)])
    assert ratings.source == "human"
    assert 2 < len(kept) < len(RATED)
    rows = world.rows_of([*ratings.items, "thing44"])
    assert "thing44" not in rows
    assert all({world.items[row].category for row in found} == {name} for name, found in rows.items())


# --- the folder


def test_the_description(first: EvaluationSet) -> None:
    about = first.description
    assert (about.name, about.source, about.images) == ("photos", "human_model", "images.parquet")
    assert "not from people themselves" in about.about
    assert about.judgements == JUDGEMENTS
    assert about.licences == LICENCES
    assert (about.answers, about.ratings) == ({"things2171": "things2171.parquet"}, {"rdm48": "rdm48.parquet"})
    run = read_run(first.path, verb="world", verify=True)
    assert len(run["files"]) == 9
    assert len(run["inputs"]) == 8
    assert run["figures"]["items"] == len(first.items)
    assert run["figures"]["training"] == len(training_ids(first))
    assert run["figures"]["splits"] == dict(Counter(item.split for item in first.items))


def test_the_showcase_is_held_out_and_of_different_groups(world: EvaluationSet, seed: int) -> None:
    heldout = {item.id: item.group for item in world.select("heldout") if item.id.startswith("imagenet/")}
    shown = world.description.showcase
    assert set(shown) <= set(heldout)
    assert {heldout[name] for name in shown} == set(heldout.values())
    for name in shown:
        assert all(rank(seed, name) <= rank(seed, o) for o, group in heldout.items() if group == heldout[name])
    many = [Photo(f"{k}", "", "", f"g{k}", "heldout", "", "imagenet", k, k) for k in range(30)]
    assert showcase(many, seed) == sorted((str(k) for k in range(30)), key=lambda name: rank(seed, name))[:8]


def test_the_same_seed_gives_the_same_bytes(first: EvaluationSet, pack: Path, tmp_path: Path) -> None:
    again = build_photos_world(tmp_path / "again", data_dir=pack)
    assert read_run(again.path)["files"] == read_run(first.path, verify=True)["files"]
    other = build_photos_world(tmp_path / "other", data_dir=pack, seed=1)
    split = [{item.category: item.split for item in world.items} for world in (first, other)]
    assert any(split[1].get(category, side) != side for category, side in split[0].items())
    assert first.key != other.key


def test_the_seed_decides_the_triplets_too(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same split, and each split's are drawn apart."""
    monkeypatch.setattr(module, "split_concepts", lambda names, _: split_concepts(names, 1))
    drawn = []
    for seed in (1, 2):
        world = build_photos_world(tmp_path / f"{seed}", data_dir=pack, seed=seed)
        found = world.judgements("heldout")
        drawn.append([[BY_NAME[found.items[k]].concept for k in row] for row in found.indices])
    assert {name for row in drawn[0] for name in row} == {name for row in drawn[1] for name in row}
    assert drawn[0] != drawn[1]


def test_a_second_call_does_nothing(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build_photos_world(tmp_path / "data", data_dir=pack)
    shutil.copytree(pack, tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_photos", lambda *_: pytest.fail("made again"))
        assert build_photos_world(made.path, data_dir=pack).items == made.items
        assert build_photos_world(made.path, data_dir=tmp_path / "moved").items == made.items
        with pytest.raises(LikemindError, match="already holds something else"):
            build_photos_world(made.path, data_dir=pack, seed=1)
        (tmp_path / "moved/photos/tiny_imagenet.parquet").unlink()
        with pytest.raises(LikemindError, match="already holds something else"):
            build_photos_world(made.path, data_dir=tmp_path / "moved")
    again = build_photos_world(made.path, data_dir=pack, seed=1, overwrite=True)
    assert again.items != made.items


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"seed": -1}, "seed must be 0 or more, got -1"), ({"data_dir": "nowhere"}, "does not exist")],
)
def test_mistakes(pack: Path, tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(LikemindError, match=words):
        build_photos_world(tmp_path / "data", **({"data_dir": pack} | arguments))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# --- splits

NAMES = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


@given(NAMES, st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_shares_are_kept_and_order_does_not_matter(names: list[str], seed: int, random: object) -> None:
    found = split_concepts(names, seed)
    assert set(found) == set(names)
    count = Counter(found.values())
    assert count["heldout"] == round(0.25 * len(names))
    assert count["heldout"] + count["validation"] == round(0.4 * len(names))
    turned = list(names)
    random.shuffle(turned)  # type: ignore[attr-defined]
    assert split_concepts(turned, seed) == found
    order = {"heldout": 0, "validation": 1, "train": 2}
    ranked = sorted(names, key=lambda name: rank(seed, name))
    assert [order[found[name]] for name in ranked] == sorted(order[found[name]] for name in ranked)


def test_seeds_give_other_splits() -> None:
    splits = [tuple(sorted(split_concepts(CONCEPTS, seed).items())) for seed in range(20)]
    assert len(set(splits)) == 20


# --- the real photographs


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TRIALS", TRIALS)
        return build_photos_world(tmp_path_factory.mktemp("real") / "data", data_dir=shared_data)


def concepts_of(data: Path) -> dict[str, str]:
    """Photograph → THINGS concept, or the class where it has none."""
    found = {}
    for collection, file in (("imagenet", "imagenet_sample"), ("caltech101", "caltech101"), ("tiny", "tiny_imagenet")):
        path = data / "photos" / f"{file}.parquet"
        names = [name for name in pq.read_schema(path).names if name != "image"]
        for row in pq.read_table(path, columns=names).to_pylist():
            found[f"{collection}/{row['id']}"] = (
                row["things_id"] or f"{collection}/{row.get('wnid', row['class_name'])}"
            )
    return found


def test_the_real_world_has_many_unseen_concepts(real: EvaluationSet, shared_data: Path) -> None:
    shows = concepts_of(shared_data)
    assert all(shows[item.id] == item.category for item in real.items)
    named = {split: {i.category for i in real.select(split) if "/" not in i.category} for split in TRIALS}
    assert len(named["heldout"]) > 100
    assert len(named["validation"]) > 50
    assert len(named["train"]) > 250
    trained = {shows[name] for name in training_ids(real)} | named["train"]
    assert not trained & (named["heldout"] | named["validation"])
    assert not named["heldout"] & named["validation"]
    assert len(training_ids(real)) > 4000
    for split, n in TRIALS.items():
        assert len(real.judgements(split)) == n


def test_no_real_few_shot_class_is_among_those_of_training(real: EvaluationSet, shared_data: Path) -> None:
    shows, few = concepts_of(shared_data), real.select(fewshot="heldout")
    trained = {shows[name] for name in training_ids(real)}
    assert len({item.category for item in few}) > 50
    assert {item.id.split("/")[0] for item in few} == {"caltech101"}
    assert not {item.category for item in few} & trained
    assert (
        not {f"{c}/{wnid}" for c in ("imagenet", "tiny") for wnids in IMAGENET_OF.values() for wnid in wnids} & trained
    )
    classes = pq.read_table(shared_data / "photos/caltech101.parquet", columns=["class_name", "things_id"]).to_pylist()
    nameless = {row["class_name"] for row in classes if row["things_id"] is None}
    assert nameless - set(ALIKE) == set(IMAGENET_OF)
    assert set(ALIKE.values()) <= {row["class_name"] for row in classes} - set(ALIKE)
    assert min(Counter(item.category for item in few).values()) > 5  # enough for 5-shot tasks


def slow_answers(data: Path, shown: set[str]) -> list[list[str]]:
    lines = (data / "things/concepts.tsv").read_text().splitlines()[1:]
    names = [line.split("\t")[1] for line in lines]
    rows = np.load(data / "things/human_triplets_2171.npy").tolist()
    return [[names[k] for k in row] for row in rows if {names[k] for k in row} <= shown]


def test_real_peoples_answers_and_ratings(real: EvaluationSet, shared_data: Path) -> None:
    answers: Triplets = real.answers("things2171")
    wanted = slow_answers(shared_data, {item.category for item in real.items})
    assert [[answers.items[k] for k in row] for row in answers.indices] == wanted
    assert answers.odd_items == [row[2] for row in wanted]
    assert len(answers) == 37
    ratings = real.ratings("rdm48")
    assert len(ratings) == 13
    assert "camera1" in ratings.items
    assert (answers.source, ratings.source) == ("human", "human")

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from likemind.artifacts import read_run
from likemind.errors import LikemindError
from likemind.teacher import crossvalidate
from likemind.teacher import teach as module
from likemind.teacher.crossvalidate import Answered, cross_validate
from likemind.teacher.teach import teach
from likemind.teacher.teacher import IDENTITY, Teacher
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.features.store import FeatureStore
    from likemind.teacher.affine import AffineProblem

    from .conftest import World

    StoreOf = Callable[..., FeatureStore]

FAST: dict[str, Any] = {"folds": 2, "penalties": [0.1, 0.03], "mixes": [1.0]}


def answered(world: World, object_of: np.ndarray | None = None, **changes: Any) -> Answered:
    objects = np.arange(len(world.X)) if object_of is None else object_of
    ones = np.ones(len(world.triplets))
    return replace(Answered(world.X, world.triplets, world.answers, ones, objects), **changes)


def test_what_is_loaded_is_what_was_fitted(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X)
    teacher = teach(store, world.judgements(), out=tmp_path / "t", **FAST)
    again = Teacher.load(tmp_path / "t", verify=True)
    assert again.key == teacher.key
    for name in (
        "weights_",
        "bias_",
        "mean_",
        "scale_",
        "identity_scale_",
        "penalty",
        "mix",
        "local_weight",
        "loss_",
        "backbone_",
        "cv_results_",
        "facts_",
    ):
        np.testing.assert_equal(getattr(again, name), getattr(teacher, name))
    np.testing.assert_array_equal(again.transform(world.X), teacher.transform(world.X))
    assert Teacher.load(again) is again
    assert not teacher.is_identity
    assert teacher.backbone_ == store.fingerprint
    run = read_run(tmp_path / "t", verb="teach")
    assert run["figures"]["source"] == "simulated"
    assert set(run["files"]) == {"teacher.safetensors", "teacher.json", "README.md"}
    card = (tmp_path / "t" / "README.md").read_text()
    assert "source: **simulated**" in card
    assert "| identity | 1 | " in card
    assert "| **0.03** | 1 | " in card


def test_the_map_is_refitted_to_all_answers_as_it_was_chosen(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    judgements = world.judgements()
    teacher = teach(store_of(world.X), judgements, out=tmp_path / "t", **FAST | {"mixes": [1.0, 0.5]})
    (best,) = [row for row in teacher.cv_results_ if row["chosen"]]
    assert teacher.chosen_ == best
    assert (teacher.penalty, teacher.mix) == (best["penalty"], best["mix"])
    triplets, targets, answers = judgements.targets()
    X = world.X.astype(np.float32)
    wanted = Teacher(best["penalty"], mix=best["mix"]).fit(X, triplets, targets, answers)
    wanted.calibrate(best["temperature"])
    np.testing.assert_allclose(teacher.transform(X), wanted.transform(X), atol=1e-5)
    assert teacher.facts_["agreement_unseen"] == best["agreement"] > teacher.facts_["agreement_unseen_identity"]


def test_folds_are_judged_on_objects_that_they_have_not_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of the table, from plain fits of plain splits."""
    sizes: list[int] = []
    real = crossvalidate.AffineProblem

    def problem(X: np.ndarray, triplets: np.ndarray, *args: Any, **kwargs: Any) -> AffineProblem:
        sizes.append(len(X))
        assert triplets.min() >= 0
        return real(X, triplets, *args, **kwargs)

    monkeypatch.setattr(crossvalidate, "AffineProblem", problem)
    results = cross_validate(answered(world), folds=3, penalties=[0.1])
    assert sizes == [32] * 3
    assert [row["penalty"] for row in results] == [None, 0.1]
    fold_of = np.random.default_rng(0).permutation(48) % 3
    unseen = [(fold_of == fold)[world.triplets].sum(1) for fold in range(3)]
    held = [count > 1 for count in unseen]
    assert results[0]["n"] == sum(int(h.sum()) for h in held)
    scores = []
    for fold in range(3):
        keep = np.flatnonzero(fold_of != fold)
        place = np.full(48, -1)
        place[keep] = np.arange(32)
        inside = unseen[fold] == 0
        teacher = Teacher(IDENTITY).fit(world.X[keep], place[world.triplets[inside]], world.answers[inside])
        pair = teacher.similarities(world.X, world.triplets[held[fold]]).argmax(1).numpy()
        scores.append(world.answers[held[fold]][np.arange(len(pair)), pair])
    assert results[0]["agreement"] == pytest.approx(np.concatenate(scores).mean())
    assert results[0]["gain"] == results[0]["gain_needed"] == 0
    assert results[1]["gain"] == pytest.approx(results[0]["cross_entropy"] - results[1]["cross_entropy"])


def test_answers_weigh_in_what_is_judged(world: World) -> None:
    """An answer given five times is one row of weight five, in the penalty's choice and in the temperature too."""
    repeats = np.where(np.arange(len(world.triplets)) % 2 == 0, 1, 5)
    rows = np.repeat(np.arange(len(world.triplets)), repeats)
    each = answered(world, triplets=world.triplets[rows], targets=world.answers[rows], answers=np.ones(len(rows)))
    many = cross_validate(each, folds=2, penalties=[0.1])
    weighted = cross_validate(answered(world, answers=repeats.astype(float)), folds=2, penalties=[0.1])
    plain = cross_validate(answered(world), folds=2, penalties=[0.1])
    for one, other in zip(many, weighted, strict=True):
        for name in ("temperature", "cross_entropy", "agreement", "calibration_error"):
            assert one[name] == pytest.approx(other[name], rel=2e-3), name
        for name in ("gain", "gain_needed"):
            assert one[name] == pytest.approx(other[name], rel=2e-2, abs=1e-6), name
    assert plain[1]["cross_entropy"] != pytest.approx(weighted[1]["cross_entropy"], rel=2e-3)


@pytest.mark.parametrize("seed", range(8))
def test_random_answers_teach_nothing_and_it_is_said(
    store_of: StoreOf, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    random = np.random.default_rng(seed).integers(3, size=len(world.triplets))
    teacher = teach(store_of(world.X), world.judgements(random), out=tmp_path / "t", **FAST)
    assert teacher.is_identity
    assert "the teacher is the identity" in caplog.text
    np.testing.assert_array_equal(teacher.weights_, np.eye(8))
    np.testing.assert_array_equal(teacher.bias_, 0)
    assert Teacher.load(tmp_path / "t").is_identity
    assert "Chosen: identity" in (tmp_path / "t" / "README.md").read_text()


def test_the_same_is_skipped_another_refused_and_overwritten(
    store_of: StoreOf, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, out = store_of(world.X), tmp_path / "t"
    first = teach(store, world.judgements(), out=out, **FAST)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "likemind"):
        patch.setattr(module, "_fit", lambda *_: pytest.fail("fitted again"))
        assert teach(store, world.judgements(), out=out, **FAST).key == first.key
        assert "nothing to do" in caplog.text
    other = world.judgements(np.roll(world.pair, 1))
    changes: list[dict[str, Any]] = [{"folds": 3}, {"penalties": [0.1]}, {"seed": 1}, {"judgements": other}]
    for change in (*changes, {"mixes": [0.5]}, {"max_loss": 0.5}, {"others": store}):
        arguments = {"judgements": world.judgements(), **FAST, **change}
        with pytest.raises(LikemindError, match="--overwrite"):
            teach(store, out=out, **arguments)
    second = teach(store, other, out=out, overwrite=True, **FAST)
    assert second.key != first.key
    assert Teacher.load(out).key == second.key


def test_a_key_for_answers_in_memory_sees_every_column(world: World) -> None:
    plain = world.judgements()
    n = len(plain)
    times = np.full(n, 1.5)
    times[3] = np.nan  # somebody's clock stopped
    keys = [
        module._key(one)
        for one in (
            plain,
            replace(plain, response_time=times),
            replace(plain, response_time=np.full(n, 1.5)),
            replace(plain, participant=np.array(["a"] * n, dtype=object)),
            replace(plain, participant=np.array(["b"] * n, dtype=object)),
            replace(plain, source="human"),
            replace(plain, indices=plain.indices[::-1].copy()),
            world.judgements(np.roll(world.pair, 1)),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert module._key(replace(plain, response_time=times.copy())) == keys[1]


def test_a_file_and_the_same_answers_in_memory_teach_the_same(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    world.judgements().to_parquet(tmp_path / "answers.parquet")
    store = store_of(world.X)
    one = teach(store, tmp_path / "answers.parquet", out=tmp_path / "one", **FAST)
    two = teach(store.path, world.judgements(), out=tmp_path / "two", **FAST)
    assert one.key == two.key


def test_items_that_have_no_features_are_named(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X[:45])
    with pytest.raises(LikemindError, match=r"name 3 items that the features .* lacks \('item-045', 'item-046'"):
        teach(store, world.judgements(), out=tmp_path / "t", **FAST)
    assert not (tmp_path / "t.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"penalties": []}, "penalties must be finite numbers"),
        ({"penalties": [-0.1, 0.2]}, "penalties must be finite numbers"),
        ({"penalties": [float("nan")]}, "penalties must be finite numbers"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"folds": 17}, "48 judged objects are too few for 17 folds"),
        ({"mixes": []}, "mixes must be above 0 and at most 1"),
        ({"mixes": [0.0, 1.0]}, "mixes must be above 0 and at most 1"),
        ({"mixes": [1.1]}, "mixes must be above 0 and at most 1"),
        ({"max_loss": -1.0}, "max_loss must be at least 0 points"),
        ({"max_loss": float("nan")}, "max_loss must be at least 0 points"),
        ({"people": "vice"}, "people 'vice' is not one of counts, posterior"),
        ({"local_weight": 1.0, "others": []}, "local_weight must be at least 0 and below 1"),
        ({"others": []}, "there are no features to join"),
        ({"weights": "random"}, "weights belong to a preset's backbone"),
        ({"preset": "things"}, "preset 'things' is not known"),
    ],
)
def test_impossible_arguments(
    store_of: StoreOf, world: World, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(LikemindError, match=words):
        teach(store_of(world.X), world.judgements(), out=tmp_path / "t", **arguments)


def test_too_few_answers_for_the_folds(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    few = world.judgements().rows(np.arange(4))
    with pytest.raises(LikemindError, match="too few for 2 folds"):
        teach(store_of(world.X), few, out=tmp_path / "t", **FAST)


def test_features_of_another_backbone_are_refused(world: World) -> None:
    teacher = Teacher(IDENTITY).fit(world.X, world.triplets, world.answers)
    teacher.check_backbone("anything", "it")
    teacher.backbone_ = "a" * 64
    teacher.check_backbone("a" * 64, "it")
    with pytest.raises(LikemindError, match="these features comes from another backbone, layer or preprocessing"):
        teacher.check_backbone("b" * 64, "these features")


def test_what_is_not_a_teacher(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="not an output of `likemind teach`"):
        Teacher.load(tmp_path / "nowhere")
    with pytest.raises(LikemindError, match="was made by `likemind embed`"):
        Teacher.load(store_of(world.X).path)
    teach(store_of(world.X), world.judgements(), out=tmp_path / "t", **FAST)
    about = json.loads((tmp_path / "t" / "teacher.json").read_text())
    (tmp_path / "t" / "teacher.json").write_text(json.dumps(about | {"scale": 1.0}))
    with pytest.raises(LikemindError, match=r"teacher\.json is not the file that was written"):
        Teacher.load(tmp_path / "t", verify=True)


DRIVER = textwrap.dedent("""
    import sys, time
    import torch
    torch.set_num_threads(1)
    from likemind.teacher.affine import AffineProblem
    from likemind.teacher.teach import teach
    real, calls = AffineProblem.solve, []
    def solve(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == int(sys.argv[4]):
            print("fitting", flush=True)
            time.sleep(60)
        return real(self, *args, **kwargs)
    AffineProblem.solve = solve
    teach(sys.argv[1], sys.argv[2], out=sys.argv[3], folds=2, penalties=[0.1, 0.03], mixes=[1.0])
""")


def test_a_killed_fit_is_made_again_to_the_same_bytes(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X)
    world.judgements().to_parquet(tmp_path / "answers.parquet")
    command = [sys.executable, "-c", DRIVER, store.path, tmp_path / "answers.parquet", tmp_path / "t", "4"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "fitting\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "t").exists()
    assert (tmp_path / "t.partial").exists()
    for out in ("t", "whole"):
        teach(store, tmp_path / "answers.parquet", out=tmp_path / out, **FAST)
    for name in ("teacher.safetensors", "teacher.json", "README.md"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "t.partial").exists()


# --- several pictures of an object


OBJECTS = np.arange(48) // 4
"""Four pictures each."""

IDS = [f"item-{k:03d}" for k in range(48)]
SHOWS = {name: f"object {number}" for name, number in zip(IDS, OBJECTS, strict=True)}


class Fits:
    """Which pictures each fold's fit saw, and which triplets each candidate was then judged by, as rows of ``X``."""

    def __init__(self, X: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[set[int]] = []
        self.judged: list[np.ndarray] = []
        row_of = {row.tobytes(): number for number, row in enumerate(X)}
        problem, pairs = crossvalidate.AffineProblem, crossvalidate.dot_pairs

        def spied_problem(rows: np.ndarray, triplets: np.ndarray, *args: Any, **kwargs: Any) -> AffineProblem:
            self.seen.append({row_of[row.tobytes()] for row in rows})
            assert len(rows[triplets]) == len(triplets)
            return problem(rows, triplets, *args, **kwargs)

        def spied_pairs(Z: Any, triplets: np.ndarray) -> Any:
            assert len(Z) == len(X)
            self.judged.append(triplets)
            return pairs(Z, triplets)

        monkeypatch.setattr(crossvalidate, "AffineProblem", spied_problem)
        monkeypatch.setattr(crossvalidate, "dot_pairs", spied_pairs)


@pytest.mark.parametrize("folds", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_held_out_objects_pictures_are_in_no_fit(
    world: World, monkeypatch: pytest.MonkeyPatch, folds: int, seed: int
) -> None:
    fits = Fits(world.X, monkeypatch)
    cross_validate(answered(world, OBJECTS), folds=folds, penalties=[0.1], seed=seed)
    assert 2 * len(fits.seen) == len(fits.judged) == 2 * folds
    for rows, triplets in zip(np.repeat(np.array(fits.seen), 2), fits.judged, strict=True):
        objects = {int(OBJECTS[row]) for row in rows}
        assert rows == {row for row in range(48) if OBJECTS[row] in objects}  # whole objects, all their pictures
        assert all(sum(OBJECTS[row] not in objects for row in triplet) > 1 for triplet in triplets)
        unseen = [sum(OBJECTS[row] not in objects for row in triplet) for triplet in world.triplets]
        assert len(triplets) == sum(count > 1 for count in unseen)
    held = [set(range(48)) - rows for rows in fits.seen]
    assert sorted(row for rows in held for row in rows) == list(range(48))  # each is held out once
    assert {len(rows) for rows in held} == {48 // folds}


def test_objects_of_one_picture_are_split_as_before(world: World) -> None:
    each, together = (
        cross_validate(answered(world, object_of), folds=2, penalties=[0.1]) for object_of in (np.arange(48), OBJECTS)
    )
    fold_of = np.random.default_rng(0).permutation(48) % 2
    assert each[0]["n"] == sum(int(((fold_of == fold)[world.triplets].sum(1) > 1).sum()) for fold in range(2))
    assert each != together


def table(path: Path, **changes: Any) -> Path:
    columns = {"id": IDS, "category": list(SHOWS.values()), "name": ["x"] * 48} | changes
    write_table(path, pa.table({name: values for name, values in columns.items() if values is not None}))
    return path


def test_a_mapping_and_a_table_are_the_same_groups(
    store_of: StoreOf, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = Fits(world.X.astype(np.float32), monkeypatch)
    store = store_of(world.X)
    one = teach(store, world.judgements(), groups=SHOWS, out=tmp_path / "one", **FAST)
    halves = [rows for rows in fits.seen if len(rows) < 48]
    assert len(halves) == 2
    assert all(Counter(row // 4 for row in rows) == dict.fromkeys({row // 4 for row in rows}, 4) for rows in halves)
    two = teach(store, world.judgements(), groups=table(tmp_path / "items.parquet"), out=tmp_path / "two", **FAST)
    again = teach(store, world.judgements(), groups=str(tmp_path / "items.parquet"), out=tmp_path / "one", **FAST)
    assert one.key == two.key == again.key
    assert one.cv_results_ == two.cv_results_


def test_groups_belong_to_the_key(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store, out = store_of(world.X), tmp_path / "t"
    plain = teach(store, world.judgements(), out=out, **FAST)
    assert teach(store, world.judgements(), groups=None, out=out, **FAST).key == plain.key
    assert teach(store, world.judgements(), groups={}, out=out, **FAST).key == plain.key
    for groups in (SHOWS, SHOWS | {"item-000": "object 7"}):
        with pytest.raises(LikemindError, match="--overwrite"):
            teach(store, world.judgements(), groups=groups, out=out, **FAST)
    grouped = teach(store, world.judgements(), groups=SHOWS, out=out, overwrite=True, **FAST)
    assert grouped.key != plain.key
    assert grouped.cv_results_ != plain.cv_results_
    np.testing.assert_equal(grouped.facts_["items"], 48)


def test_what_nobody_names_stands_for_itself(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    """Items that are missing, and those whose category is empty, are objects of their own."""
    store = store_of(world.X)
    some = {name: shows for name, shows in SHOWS.items() if name < "item-024"}
    known = [SHOWS[name] if name in some else None for name in IDS]
    empty = [shows or "" for shows in known]
    wanted = teach(store, world.judgements(), groups=some, out=tmp_path / "a", **FAST)
    for number, category in enumerate((known, empty)):
        path = table(tmp_path / f"{number}.parquet", category=category)
        found = teach(store, world.judgements(), groups=path, out=tmp_path / f"b{number}", **FAST)
        assert found.key == wanted.key
    numbers = table(tmp_path / "numbers.parquet", category=OBJECTS)
    assert teach(store, world.judgements(), groups=numbers, out=tmp_path / "c", **FAST).facts_["items"] == 48


def test_groups_that_cannot_be_used(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X)
    wrong: list[tuple[Any, str]] = [
        (table(tmp_path / "a.parquet", category=None), r"a\.parquet has no column category: name another --groups"),
        (table(tmp_path / "b.parquet", id=None, category=None), r"b\.parquet has no column id, category: name"),
        (tmp_path / "none.parquet", r"none\.parquet does not exist"),
        (
            dict.fromkeys(IDS, "one thing"),
            "1 judged objects are too few for 2 folds: give more items, or fewer --folds",
        ),
        ({name: str(k % 5) for k, name in enumerate(IDS)}, "5 judged objects are too few for 2 folds"),
    ]
    for groups, words in wrong:
        with pytest.raises(LikemindError, match=words) as error:
            teach(store, world.judgements(), groups=groups, out=tmp_path / "t", **FAST)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "t").exists()


def test_answers_about_a_picture_say_nothing_of_another_object(store_of: StoreOf, tmp_path: Path) -> None:
    """Pictures of an object are almost the same, and people answer by the object's name, which no feature shows: folds
    of pictures see it again and take it for knowledge; folds of objects do not."""
    rng = np.random.default_rng(0)
    looks, meaning = rng.normal(size=(12, 24)), rng.normal(size=(12, 2)) * 2
    X = looks[OBJECTS] + 0.01 * rng.normal(size=(48, 24))
    triplets = np.stack([rng.choice(48, 3, replace=False) for _ in range(3000)])
    seen = meaning[OBJECTS]
    pairs = np.stack(
        [(seen[triplets[:, a]] * seen[triplets[:, b]]).sum(1) for a, b in ((0, 1), (0, 2), (1, 2))], axis=1
    )
    judgements = Triplets(IDS, triplets, choice=2 - pairs.argmax(axis=1), source="simulated")
    store = store_of(X)
    fooled = teach(store, judgements, out=tmp_path / "pictures", **FAST)
    honest = teach(store, judgements, groups=SHOWS, out=tmp_path / "objects", **FAST)
    assert fooled.cv_results_[1]["agreement"] > honest.cv_results_[1]["agreement"] + 0.2


def test_the_command_takes_groups(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X)
    world.judgements().to_parquet(tmp_path / "answers.parquet")
    command = [sys.executable, "-m", "likemind", "teach", str(store.path), "answers.parquet", "--folds=2", "--json"]
    command += [
        "--penalty=0.1",
        "--penalty=0.03",
        "--mix=1",
        "--out=t",
        f"--groups={table(tmp_path / 'items.parquet').name}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = teach(store, tmp_path / "answers.parquet", groups=SHOWS, out=tmp_path / "here", **FAST)
    there = Teacher.load(tmp_path / "t")
    assert there.key == here.key
    assert json.loads(done.stdout)["agreement_unseen"] == here.facts_["agreement_unseen"]

"""Read-outs under shift: known answers from made-up features, a slow reference, and whole runs on stand-ins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV

import likemind
from likemind.datasets.breeds import LIVING, NONLIVING, ROOT, TASKS
from likemind.datasets.imagenet import imagenet_classes
from likemind.datasets.shifts import ShiftSets
from likemind.episodes import ALPHAS
from likemind.errors import LikemindError
from likemind.evaluation import transfer
from likemind.evaluation.bootstrap import SAMPLES, draws
from likemind.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from likemind.evaluation.transfer import TESTED, Transfer
from likemind.triplets import write_table

from .conftest import saved_backbone

if TYPE_CHECKING:
    from collections.abc import Callable

    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.evaluation.context import Scored
    from likemind.images.collection import ImageCollection

OBJECTS = ("ant", "bee", "cup")
SHOWN = ("source/accuracy", "target/accuracy", "target/drop")


def write_hierarchy(folder: Path) -> list[str]:
    """48 of ImageNet's classes in a tree with two nodes at level 3, four at level 4 and twelve at level 5."""
    folder.mkdir(parents=True)
    leaves = list(imagenet_classes()[:48])
    edges = [(ROOT, LIVING), (ROOT, NONLIVING)]
    for side, (top, own) in enumerate(((LIVING, leaves[:24]), (NONLIVING, leaves[24:]))):
        edges += [(top, f"a{side}"), (f"a{side}", f"b{side}")]
        for number, leaf in enumerate(own):
            d, c = f"d{side}{number // 4}", f"c{side}{number // 12}"
            edges += [(f"b{side}", c), (c, d), (d, leaf)]
    (folder / "class_hierarchy.txt").write_text("".join(f"{a} {b}\n" for a, b in dict.fromkeys(edges)))
    rows = [[number, wnid, wnid] for number, wnid in enumerate(imagenet_classes())]
    (folder / "dataset_class_info.json").write_text(json.dumps(rows))
    (folder / "node_names.txt").write_text("b0\tthing that lives\n")
    return leaves


def photographs(folder: Path, classes: tuple[str, ...] | list[str], each: int) -> None:
    for number, wnid in enumerate(classes):
        (folder / wnid).mkdir(parents=True)
        for k in range(each):
            Image.new("RGB", (10, 10), (number % 200, (7 * k) % 256, number // 5)).save(folder / wnid / f"{k}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet, ImageNet-A, BREEDS' files and the pack's Caltech-101, each as published and small."""
    folder: Path = tmp_path_factory.mktemp("sets")
    write_hierarchy(folder / "breeds")
    photographs(folder / "imagenet" / "train", imagenet_classes(), 2)
    photographs(folder / "imagenet" / "val", imagenet_classes(), 1)
    photographs(folder / "imagenet-a", imagenet_classes("imagenet_a"), 1)
    picture = (folder / "imagenet-a" / imagenet_classes("imagenet_a")[0] / "0.png").read_bytes()
    rows = [
        {"id": f"{name}/{k}", "class_name": name, "split": "train" if k < 4 else "test", "image": picture}
        for name in (*OBJECTS, "Faces_easy")
        for k in range(9)
    ]
    (folder / "photos").mkdir()
    write_table(folder / "photos" / "caltech101.parquet", pa.Table.from_pylist(rows))
    return folder


def scores(
    root: Path, monkeypatch: pytest.MonkeyPatch, features: Callable[[str, ImageCollection], np.ndarray], seed: int = 0
) -> dict[str, Scored]:
    """Score made-up features: ``features(collection, images)`` gives the rows."""

    def embed(images: ImageCollection, _: object, *, out: Path) -> SimpleNamespace:
        return SimpleNamespace(features=features(Path(out).name.partition("-of-")[2], images))

    monkeypatch.setattr(transfer, "embed", embed)
    model: Any = SimpleNamespace(
        backbone=SimpleNamespace(fingerprint="f" * 64),
        embeddings=lambda pooled: {"backbone": pooled / np.linalg.norm(pooled, axis=1, keepdims=True)},
    )
    context: Any = SimpleNamespace(seed=seed, sets=ShiftSets(root), features=root.parent / "features")
    subject: Any = SimpleNamespace(model=model, layer="backbone")
    return {one.metric: one for one in Transfer(context).score(subject)}


def class_of(images: ImageCollection) -> list[str]:
    return [name.partition("/")[0] for name in images.ids]


def by_class(_: str, images: ImageCollection) -> np.ndarray:
    """Every class has a direction of its own, far from all others."""
    names = [*imagenet_classes(), *OBJECTS]
    return np.stack([np.random.default_rng(names.index(name)).normal(size=120) for name in class_of(images)])


def test_which_shifts_there_are(root: Path) -> None:
    found = ShiftSets(root)
    assert [shift.name for shift in found.shifts] == ["imagenet-a", *TASKS]
    assert found.corrupts
    for shift in found.shifts[1:]:
        assert shift.source is not None
        assert shift.train.classes == shift.source.classes
        assert not set(shift.train.classes) & set(shift.target.classes)
        assert set(shift.label_of) == {*shift.train.classes, *shift.target.classes}
    assert len(found.shifts[1].train.classes) == 20
    assert set(found.labelled("imagenet-val").classes) == {
        name for shift in found.shifts for side in shift.sides for name in side.classes
    }


def test_more_folders_are_more_shifts(tmp_path: Path) -> None:
    for name in ("imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2"):
        (tmp_path / name).mkdir()
    assert [shift.name for shift in ShiftSets(tmp_path).shifts] == [
        "imagenet-a",
        "imagenet-r",
        "imagenet-sketch",
        "imagenet-v2",
    ]
    with pytest.raises(LikemindError, match="imagenet-a holds no images"):
        _ = ShiftSets(tmp_path).key


def test_features_that_know_classes_but_not_their_kin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scores(root, monkeypatch, by_class)
    for name, task in TASKS.items():
        assert found[f"{name}/source/accuracy"].estimate.value == 1.0
        target = found[f"{name}/target/accuracy"]
        labels = {"entity13": 2, "entity30": 4, "living17": 6, "nonliving26": 6}[name]
        assert target.chance == pytest.approx(1 / labels)
        assert target.estimate.n == labels * task.subclasses // 2
        drop = found[f"{name}/target/drop"]
        assert drop.estimate.value == pytest.approx(1 - target.estimate.value)
        assert not drop.higher_is_better
    low, high = found["entity13/target/accuracy"].estimate.interval
    assert low < 0.5 < high
    assert found["imagenet-a/target/accuracy"].estimate.value == 1.0
    assert found["imagenet-a/target/accuracy"].chance == 1 / 200
    assert found["imagenet-a/target/accuracy"].estimate.n == 200


def test_features_that_know_kinship_lose_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_of = {wnid: label for shift in ShiftSets(root).shifts for wnid, label in shift.label_of.items()}
    labels = sorted(set(label_of.values()))

    def kin(collection: str, images: ImageCollection) -> np.ndarray:
        rows = by_class(collection, images)
        for row, name in enumerate(class_of(images)):
            if name in label_of:
                rows[row] = 0.01 * rows[row] + 10 * (np.arange(120) == labels.index(label_of[name]))
        return rows

    found = scores(root, monkeypatch, kin)
    assert found["nonliving26/target/accuracy"].estimate.value == 1.0
    assert found["nonliving26/target/drop"].estimate.value == 0.0
    assert found["nonliving26/target/drop"].estimate.interval == (0.0, 0.0)


def test_constant_features_are_at_chance(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scores(root, monkeypatch, lambda _, images: np.ones((len(images), 3)))
    assert found["entity30/target/accuracy"].estimate.value == 0.25
    assert found["imagenet-a/source/accuracy"].estimate.value == 1 / 200


def test_the_slow_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's classifier on the same rows, and classes resampled one by one."""

    def blurred(collection: str, images: ImageCollection) -> np.ndarray:
        noise = np.random.default_rng(len(collection)).normal(size=(len(images), 120))
        return by_class(collection, images) + 1.5 * noise

    seed = 3
    found = scores(root, monkeypatch, blurred, seed)
    sets = ShiftSets(root)
    shift = next(shift for shift in sets.shifts if shift.name == "entity30")
    assert shift.source is not None

    def side(collection: str, classes: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
        whole = sets.labelled(collection)
        rows = blurred(collection, whole.images)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        chosen = [row for row, name in enumerate(whole.classes) if name in classes]
        return rows[chosen], [whole.classes[row] for row in chosen]

    rows, classes = side("imagenet-train", shift.train.classes)
    fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows, [shift.label_of[name] for name in classes])
    replicates = {}
    for place, (domain, part) in enumerate((("source", shift.source), ("target", shift.target))):
        rows, classes = side(part.collection, part.classes)
        right = fitted.predict(rows) == np.array([shift.label_of[name] for name in classes])
        estimate: Any = found[f"entity30/{domain}/accuracy"].estimate
        assert estimate.value == pytest.approx(right.mean())
        assert 0.3 < right.mean() < 1.0 or domain == "target"
        of = {name: [bool(r) for r, c in zip(right, classes, strict=True) if c == name] for name in set(classes)}
        names = sorted(of)
        slow = []
        for sample in range(SAMPLES):
            drawn = [names[row] for row in draws(len(names), seed + place, sample)]
            answers = [one for name in drawn for one in of[name]]
            slow.append(sum(answers) / len(answers))
        np.testing.assert_allclose(estimate.replicates, slow)
        replicates[domain] = np.array(slow)
    drop: Any = found["entity30/target/drop"].estimate
    np.testing.assert_allclose(drop.replicates, 1 - replicates["target"] / replicates["source"])


@pytest.mark.parametrize("classes", [7, 15, 36])
def test_intervals_over_classes_cover(classes: int) -> None:
    """Two models on classes of differing difficulty: 2,000 studies, and how often intervals hold the truth."""
    draw = np.random.default_rng(classes)
    names = [f"c{k}" for k in range(classes) for _ in range(20)]
    alone = paired = 0
    for study in range(2000):
        p = draw.beta(1.2, 1.5, size=classes)
        q = np.clip(p + draw.normal(0, 0.05, size=classes), 0, 1)
        ours, theirs = (
            transfer._accuracy((draw.random((classes, 20)) < chance[:, None]).ravel().astype(float), names, study)
            for chance in (p, q)
        )
        assert isinstance(ours, transfer.OfClasses)
        low, high = ours.interval
        alone += low <= 1.2 / 2.7 <= high
        low, high = ours.minus(theirs).interval  # type: ignore[arg-type]
        paired += low <= 0 <= high
    assert 0.92 < alone / 2000 < 0.98
    assert 0.93 < paired / 2000 < 0.98


def test_corruptions_are_averaged_as_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows everything up to a severity of its own for each corruption, and nothing beyond."""
    holds = {name: number for number, name in enumerate(CORRUPTIONS)}

    def rows(collection: str, images: ImageCollection) -> np.ndarray:
        known = by_class(collection, images)
        if not collection.startswith("caltech-") or collection in ("caltech-train", "caltech-clean-0"):
            return known
        _, name, severity = collection.split("-")
        assert images.read(0).size == (224, 224)
        others = [OBJECTS[(OBJECTS.index(one) + 1) % 3] for one in class_of(images)]
        wrong: Any = SimpleNamespace(ids=[f"{other}/x" for other in others])
        return known if int(severity) <= holds[name] else by_class(collection, wrong)

    found = scores(root, monkeypatch, rows)
    assert found["caltech101-c/source/accuracy"].estimate.value == 1.0
    assert found["caltech101-c/source/accuracy"].estimate.n == TESTED * len(OBJECTS)
    for name, number in holds.items():
        assert found[f"caltech101-c/target/accuracy.{name}"].estimate.value == pytest.approx(number / 5)
    for severity in SEVERITIES:
        share = sum(number >= severity for number in holds.values()) / len(holds)
        assert found[f"caltech101-c/target/accuracy.s{severity}"].estimate.value == pytest.approx(share)
    assert found["caltech101-c/target/accuracy.all"].estimate.value == pytest.approx(0.5)
    assert found["caltech101-c/target/drop.all"].estimate.value == pytest.approx(0.5)
    assert found["caltech101-c/target/drop.all"].chance is None


def test_a_model_that_knows_nothing_has_no_drop(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(collection: str, images: ImageCollection) -> np.ndarray:
        known = by_class(collection, images)
        return known if collection.endswith("train") else -known

    found = scores(root, monkeypatch, wrong)
    assert found["caltech101-c/source/accuracy"].estimate.value == 0.0
    assert "caltech101-c/target/drop.all" not in found


def test_a_whole_run(root: Path, data: EvaluationSet, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    shutil.copytree(root, sets)
    shutil.rmtree(sets / "imagenet-a")
    shutil.rmtree(sets / "photos")
    models = {"base": saved_backbone(tmp_path / "base"), "other": saved_backbone(tmp_path / "other", seed=1)}
    out = tmp_path / "results"
    made = likemind.evaluate(models, data=data, out=out, sets=sets, suite="robustness")
    for model in models:
        score = made.score(model, "living17/target/accuracy@backbone")
        assert score.source == "labels"
        assert score.low <= score.value <= score.high
    assert made.comparison("other", "base", "entity13/target/drop@backbone").n == 20
    assert not (out / "features").exists()
    told = [line.split() for line in made.table().splitlines() if line.startswith("living17 ")]
    expected = [made.score("other", f"living17/{what}@backbone").value for what in SHOWN]
    assert told[1] == ["living17", "other", "backbone", *(f"{value:.3f}" for value in expected)]
    assert len(told) == 2
    assert likemind.evaluate(models, data=data, out=out, sets=sets, suite="robustness") == made

    without = likemind.evaluate(models, data=data, out=tmp_path / "without", suite="robustness")
    assert {score.metric.partition("/")[0] for score in without.scores} == {"toys"}
    human = likemind.evaluate(models, data=data, out=tmp_path / "human", sets=tmp_path / "nothing", suite="human")
    assert human.scores

    Image.new("RGB", (10, 10), "white").save(sets / "imagenet" / "val" / imagenet_classes()[0] / "0.png")
    with pytest.raises(LikemindError, match="overwrite"):
        likemind.evaluate(models, data=data, out=out, sets=sets, suite="robustness")
    for wnid in imagenet_classes()[:7]:
        shutil.rmtree(sets / "imagenet" / "val" / wnid)
    (sets / "imagenet" / "val" / imagenet_classes()[7] / "0.png").unlink()
    with pytest.raises(
        LikemindError, match=r"of the 1000 classes of ImageNet, 7 have no folder .* and 1 have an empty"
    ):
        likemind.evaluate(models, data=data, out=tmp_path / "new", sets=sets, suite="robustness")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.partial").exists()


def test_a_damaged_photograph_is_named(root: Path, data: EvaluationSet, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    (sets / "imagenet-a").mkdir(parents=True)
    shutil.copytree(root / "imagenet", sets / "imagenet")
    shutil.copytree(root / "breeds", sets / "breeds")
    (sets / "imagenet-a").rmdir()
    (sets / "imagenet" / "val" / imagenet_classes()[3] / "0.png").write_bytes(b"no picture")
    with pytest.raises(LikemindError, match=imagenet_classes()[3]):
        likemind.evaluate(
            [saved_backbone(tmp_path / "base")], data=data, out=tmp_path / "out", sets=sets, suite="robustness"
        )


def test_the_packs_shifts(shared_data: Path) -> None:
    found = ShiftSets(shared_data)
    sizes = {
        shift.name: (len(set(shift.labels(shift.train.classes))), len(shift.train.classes)) for shift in found.shifts
    }
    assert sizes == {
        "tiny-entity14": (14, 28),
        "tiny-entity36": (36, 36),
        "tiny-living7": (7, 7),
        "tiny-nonliving15": (15, 15),
        "sample-entity13": (13, 130),
        "sample-entity30": (30, 120),
        "sample-living17": (17, 34),
        "sample-nonliving26": (26, 52),
    }
    assert found.corrupts
    assert set(found.labelled("tiny-train").counts().values()) == {60}
    assert set(found.labelled("tiny-val").counts().values()) == {20}
    assert set(found.labelled("sample").counts().values()) == {1}
    assert not {"Faces_easy"} & set(found.caltech("test").classes)

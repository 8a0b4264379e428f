"""What ``teach`` takes: joined features, models of people, photographs for a preset; and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from likemind.artifacts import read_run
from likemind.errors import LikemindError
from likemind.features.store import FeatureStore, joined
from likemind.pseudolabels.label import label
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.ratings import RatingMatrix
from likemind.teacher import teach as module
from likemind.teacher.teach import teach
from likemind.teacher.teacher import Teacher
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    StoreOf = Callable[..., FeatureStore]

FAST: dict[str, Any] = {"folds": 2, "penalties": [0.1, 0.03], "mixes": [1.0]}
IDS = [f"item-{k:03d}" for k in range(48)]


# --- scikit-learn's manners


def test_it_has_scikit_learns_manners(world: World) -> None:
    teacher = Teacher(0.3, mix=0.5, local_weight=0.1, max_iter=7)
    wanted = {"penalty": 0.3, "mix": 0.5, "local_weight": 0.1, "max_iter": 7}
    assert teacher.get_params() == clone(teacher).get_params() == wanted
    assert teacher.set_params(penalty=0.03, local_weight=0.0) is teacher
    assert teacher.penalty == 0.03
    with pytest.raises(ValueError, match="Invalid parameter 'lambda'"):
        teacher.set_params(**{"lambda": 1})
    for call in (teacher.transform, lambda X: teacher.score(X, world.triplets, world.p)):
        with pytest.raises(NotFittedError):
            call(world.X)
    with pytest.raises(NotFittedError):
        teacher.to_glocal("never.npz")
    assert teacher.fit(world.X, world.triplets, world.answers) is teacher
    pair = teacher.similarities(world.X, world.triplets).argmax(1).numpy()
    expected = world.p[np.arange(len(pair)), pair].mean()
    assert teacher.score(world.X, world.triplets, world.p) == pytest.approx(expected)
    assert not hasattr(clone(teacher), "weights_")


# --- joined features


@pytest.fixture
def parts(store_of: StoreOf, world: World) -> tuple[FeatureStore, FeatureStore]:
    """What people see is in the second store, on a far larger scale than all else."""
    return store_of(world.X[:, 2:], "a", "a" * 64), store_of(1000 * world.X[:, :2], "b", "b" * 64)


def test_joined_features_teach_and_are_labelled(
    parts: tuple[FeatureStore, FeatureStore], world: World, tmp_path: Path
) -> None:
    a, b = parts
    teacher = teach([a, b.path], world.judgements(), out=tmp_path / "t", **FAST)
    alone = teach(a, world.judgements(), out=tmp_path / "alone", **FAST)
    assert teacher.facts_["agreement_unseen"] > alone.facts_["agreement_unseen"] + 0.1
    assert teacher.backbone_ == joined([a, b]).fingerprint
    assert len(set(teacher.scale_[:6])) == len(set(teacher.scale_[6:])) == 1
    X = joined([a, b]).rows(IDS)
    standard = (X - teacher.mean_) / teacher.scale_
    assert standard[:, :6].std() == pytest.approx(standard[:, 6:].std(), rel=1e-4)
    found = label([a, b], teacher, out=tmp_path / "labels", n=60, clusters=4)
    Z = teacher.transform(X)
    assert found.similarities is not None
    for row, similarities in zip(found.indices[:5], found.similarities, strict=False):
        assert similarities[0] == pytest.approx(float(Z[row[0]] @ Z[row[1]]), rel=1e-3, abs=1e-4)
    for wrong in (a, [a], [b, a], [a, b, b]):
        with pytest.raises(LikemindError, match="comes from another backbone, layer or preprocessing"):
            label(wrong, teacher, out=tmp_path / "others", n=60, clusters=4)
    with pytest.raises(LikemindError, match="takes features of width 8"):
        teacher.transform(a.rows(IDS))


def test_joined_features_belong_to_the_key(
    parts: tuple[FeatureStore, FeatureStore], world: World, tmp_path: Path
) -> None:
    a, b = parts
    teach([a, b], world.judgements(), out=tmp_path / "t", **FAST)
    assert teach([a, b], world.judgements(), out=tmp_path / "t", **FAST).backbone_ == joined([a, b]).fingerprint
    with pytest.raises(LikemindError, match="--overwrite"):
        teach([b, a], world.judgements(), out=tmp_path / "t", **FAST)


def test_others_are_part_of_what_is_fitted(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store = store_of(world.X)
    others = store_of(np.random.default_rng(1).normal(size=(60, 8)), "others")
    keys = set()
    for number, arguments in enumerate(({}, {"others": others}, {"others": others, "local_weight": 0.8})):
        teacher = teach(store, world.judgements(), out=tmp_path / f"t{number}", **FAST, **arguments)
        keys.add(teacher.key)
        assert teacher.local_weight == (0.0, 0.25, 0.8)[number]
    assert len(keys) == 3
    assert "local term with the weight 0.8" in (tmp_path / "t2" / "README.md").read_text()


def test_others_of_another_backbone_are_refused(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    store, stranger = store_of(world.X), store_of(world.X, "stranger", "e" * 64)
    for others in (stranger, [store, store]):
        with pytest.raises(LikemindError, match="come from another backbone, layer or preprocessing than"):
            teach(store, world.judgements(), out=tmp_path / "t", others=others, **FAST)
    assert not list(tmp_path.glob("t*"))


def test_of_many_others_some_are_drawn(store_of: StoreOf, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    others = store_of(np.arange(90.0).reshape(30, 3), "others")
    monkeypatch.setattr(module, "_OTHERS", 7)
    drawn = module._others(others, 0)
    assert drawn is not None
    assert drawn.shape == (7, 3)
    assert len(set(drawn[:, 0])) == 7
    np.testing.assert_array_equal(drawn, module._others(others, 0))
    assert not np.array_equal(drawn, module._others(others, 1))


# --- a model of people


def people(world: World, extra: int = 0) -> HumanEmbedding:
    seen = np.abs(world.X[:, :2]) + 0.1 * np.random.default_rng(0).random((48, 2))
    rows = np.concatenate([seen, np.ones((extra, 2))])
    return HumanEmbedding([*IDS, *(f"far-{k}" for k in range(extra))], rows)


def test_a_model_of_people_is_asked(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    model, store = people(world), store_of(np.concatenate([np.abs(world.X[:, :2]), world.X[:, 2:]], axis=1))
    teacher = teach(store, model, out=tmp_path / "t", **FAST)
    assert not teacher.is_identity
    assert teacher.facts_["source"] == "human_model"
    assert teacher.facts_["triplets"] == teacher.facts_["answers"] == 48 * 47 * 46 // 6
    assert teacher.facts_["ceiling"] < 1
    card = (tmp_path / "t" / "README.md").read_text()
    assert "1 by construction" not in card
    assert "source: **human_model**" in card
    model.to_parquet(tmp_path / "people.parquet")
    by_file = teach(store, tmp_path / "people.parquet", out=tmp_path / "f", **FAST)
    assert by_file.key == teacher.key


def test_as_many_triplets_as_are_wanted_and_no_more(
    store_of: StoreOf, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DRAWN", 500)
    teacher = teach(store_of(world.X), people(world), out=tmp_path / "t", **FAST)
    assert teacher.facts_["triplets"] == 500
    assert teach(store_of(world.X), people(world), out=tmp_path / "s", seed=1, **FAST).key != teacher.key


def test_items_of_the_model_without_features_are_left_out(
    store_of: StoreOf, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = teach(store_of(world.X), people(world, extra=5), out=tmp_path / "t", **FAST)
    assert "48 of the embedding's 53 items have features; the others are left out" in caplog.text
    assert teacher.facts_["items"] == 48
    far = HumanEmbedding(["item-000", "item-001", "x", "y"], np.eye(4))
    with pytest.raises(LikemindError, match="has features of 2 items of the embedding: three at least"):
        teach(store_of(world.X), far, out=tmp_path / "few", **FAST)
    assert not (tmp_path / "few").exists()


def test_ratings_are_refused(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    ratings = RatingMatrix(IDS, 1 - np.eye(48))
    ratings.to_parquet(tmp_path / "r.parquet")
    for given, words in (
        (ratings, "the judgements are ratings"),
        (tmp_path / "r.parquet", r"r\.parquet holds ratings"),
    ):
        with pytest.raises(LikemindError, match=words):
            teach(store_of(world.X), given, out=tmp_path / "t", **FAST)
    assert not list(tmp_path.glob("t*"))


# --- what cannot be fitted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X: X * 0 + 4.2, "the features are constant over the items: use another backbone or layer"),
        (
            lambda X: np.where(np.arange(48)[:, None] == 5, np.nan, X),
            r"features has features of 'item-005' that are not finite: embed the images again",
        ),
    ],
)
def test_features_that_cannot_be_fitted(
    store_of: StoreOf, world: World, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    with pytest.raises(LikemindError, match=words):
        teach(store_of(change(world.X)), world.judgements(), out=tmp_path / "t", **FAST)
    assert not (tmp_path / "t").exists()


def test_unknown_items_are_named_before_anything_is_fitted(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    judgements = Triplets([*IDS[:46], "yak", "zebra"], world.triplets, choice=2 - world.pair)
    with pytest.raises(LikemindError, match=r"name 2 items that the features .* lacks \('yak', 'zebra'\)"):
        teach(store_of(world.X), judgements, out=tmp_path / "t", **FAST)


def test_a_triplet_of_one_object_is_never_split(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    """Triplets that show two or three pictures of an object; whatever the fold, all of these are on one side."""
    shows = {name: f"object {number % 12}" for number, name in enumerate(IDS)}
    alike = np.array([[k, k + 12, k + 24] for k in range(12)] + [[k, k + 12, (k + 1) % 12] for k in range(12)])
    indices = np.concatenate([world.triplets, alike])
    choice = np.concatenate([2 - world.pair, np.zeros(24, dtype=int)])
    judgements = Triplets(IDS, indices, choice=choice, source="simulated")
    data, objects = module._answered(store_of(world.X), judgements, shows, None)
    assert objects == 12
    for seed in range(3):
        training = np.random.default_rng(seed).permutation(12) % 3 != 0
        of_fit = data.problem(module.as_counted, 0.0, training)._objective._cells
        inside = training[data.object_of[data.triplets]]
        assert len(of_fit) == int(inside.all(axis=1).sum())
        assert all(len(set(side)) == 1 for side in inside[(np.ptp(data.object_of[data.triplets], axis=1) == 0)])
    assert teach(store_of(world.X), judgements, groups=shows, out=tmp_path / "t", **FAST).facts_["items"] == 48


def test_pictures_that_were_never_judged_are_few_shot_tasks(store_of: StoreOf, world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    strangers = np.repeat(rng.normal(size=(4, 8)), 7, axis=0) + 0.5 * rng.normal(size=(28, 8))
    store = store_of(np.concatenate([world.X, strangers]))
    groups = {f"item-{48 + k:03d}": f"stranger {k // 7}" for k in range(28)}
    teacher = teach(store, world.judgements(), groups=groups, out=tmp_path / "t", **FAST)
    assert teacher.facts_["fewshot_loss"] == teacher.chosen_["fewshot_loss"]
    assert teacher.cv_results_[0]["fewshot_loss"] == 0.0
    assert "5-shot | points lost, 95 %" in (tmp_path / "t" / "README.md").read_text()
    five = {name: shows for name, shows in groups.items() if int(name[-3:]) % 7 < 5}  # five pictures teach no sixth
    without = teach(store, world.judgements(), groups=five, out=tmp_path / "w", **FAST)
    assert "fewshot_loss" not in without.facts_
    assert "was not measured, for want of pictures" in (tmp_path / "w" / "README.md").read_text()


# --- the preset


def photographs(folder: Path, n: int) -> list[str]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(n):
        rough = Image.fromarray(rng.integers(0, 255, size=(4, 4, 3), dtype=np.uint8))
        rough.resize((48, 48)).save(folder / f"{k}.png")
    return [f"{k}.png" for k in range(n)]


def some_answers(ids: list[str], n: int, seed: int = 0) -> Triplets:
    rng = np.random.default_rng(seed)
    triplets = np.stack([rng.choice(len(ids), 3, replace=False) for _ in range(n)])
    return Triplets(ids, triplets, choice=rng.integers(3, size=n), source="simulated")


def test_the_preset_embeds_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRESETS", {"alignet": "timm/test_vit"})
    ids = photographs(tmp_path / "photos", 12)
    chosen: list[str] = []
    real = module._Settings.targets
    monkeypatch.setattr(
        module._Settings,
        "targets",
        lambda self: chosen.append(self.people) or module.as_counted,  # type: ignore[func-returns-value]
    )
    arguments: dict[str, Any] = {"preset": "alignet", "weights": "random", **FAST}
    teacher = teach(tmp_path / "photos", some_answers(ids, 80), out=tmp_path / "t", **arguments)
    store = FeatureStore.load(tmp_path / "t-features")
    assert teacher.backbone_ == store.fingerprint
    assert set(store.ids) == set(ids)
    assert set(chosen) == {"posterior"}
    assert read_run(tmp_path / "t", verb="teach")["config"]["people"] == "posterior"
    again = teach(store.path, some_answers(ids, 80), out=tmp_path / "u", preset="alignet", **FAST)
    assert again.key == teacher.key
    monkeypatch.setattr(module._Settings, "targets", real)
    counted = teach(store, some_answers(ids, 80), out=tmp_path / "c", preset="alignet", people="counts", **FAST)
    assert read_run(tmp_path / "c", verb="teach")["config"]["people"] == "counts"  # what is said wins
    assert counted.facts_["people"] == module.PEOPLE["counts"]


def test_nothing_is_embedded_for_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "embed", lambda *_, **__: pytest.fail("embedded"))
    ids = photographs(tmp_path / "photos", 12)
    for wrong in ({"folds": 1}, {"mixes": [2.0]}):
        with pytest.raises(LikemindError, match="mend --"):
            teach(tmp_path / "photos", some_answers(ids, 80), out=tmp_path / "t", preset="alignet", **wrong)  # type: ignore[arg-type]
    with pytest.raises(LikemindError, match="does not exist"):
        teach(tmp_path / "photos", tmp_path / "none.csv", out=tmp_path / "t", preset="alignet")


def free_memory() -> int:
    """Bytes; 0 where the system does not say."""
    told = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    return next((int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith("MemAvailable")), 0)


@pytest.mark.slow
def test_the_papers_own_backbone(tmp_path: Path) -> None:
    """The real architecture, at random weights: SigLIP-So400m, 384 px, 1,152 numbers."""
    if free_memory() < 6 * 2**30:
        pytest.skip("SigLIP-So400m takes 6 GB of free memory")
    ids = photographs(tmp_path / "photos", 9)
    teacher = teach(
        tmp_path / "photos",
        some_answers(ids, 84),
        out=tmp_path / "t",
        preset="alignet",
        weights="random",
        people="counts",
        folds=3,
        penalties=[0.1],
    )
    assert teacher.weights_.shape == (1152, 1152)
    assert FeatureStore.load(tmp_path / "t-features").features.shape == (9, 1152)

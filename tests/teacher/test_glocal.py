from __future__ import annotations

import io
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from likemind.errors import LikemindError
from likemind.pseudolabels.label import label
from likemind.teacher import glocal
from likemind.teacher.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.features.store import FeatureStore

    from .conftest import World

WIDTH = 8


def published(**changes: Any) -> dict[str, Any]:
    """The arrays as gLocal's files have them."""
    rng = np.random.default_rng(0)
    arrays = {
        "weights": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "bias": rng.normal(size=WIDTH).astype(np.float32),
        "mean": np.float64(0.3),
        "std": np.float64(1.7),
    }
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def written(path: Path, **changes: Any) -> Path:
    np.savez(path, **published(**changes))
    return path


def test_a_published_file_is_read_as_it_says(tmp_path: Path, world: World) -> None:
    teacher = Teacher.load(written(tmp_path / "transform.npz"))
    one = published()
    wanted = (world.X - 0.3) / 1.7 @ one["weights"].astype(float) + one["bias"]
    np.testing.assert_allclose(teacher.transform(world.X), wanted, atol=1e-5)
    assert Teacher.load(str(tmp_path / "transform.npz")).key == teacher.key
    assert teacher.backbone_ == ""
    assert not teacher.is_identity


def test_a_file_without_a_bias(tmp_path: Path, world: World) -> None:
    teacher = Teacher.from_glocal(written(tmp_path / "transform.npz", bias=None))
    np.testing.assert_array_equal(teacher.bias_, np.zeros(WIDTH, dtype=np.float32))
    wanted = (world.X - 0.3) / 1.7 @ published()["weights"].astype(float)
    np.testing.assert_allclose(teacher.transform(world.X), wanted, atol=1e-5)


def test_there_and_back(tmp_path: Path, world: World) -> None:
    """Centre and scale are vectors here, and numbers in the file."""
    stretch = np.array([1, 1, 1, 1, 1, 50, 50, 50])
    X = world.X * stretch + np.arange(WIDTH)
    teacher = Teacher(0.03).fit(X, world.triplets, world.answers, blocks=[5, 3])
    teacher.calibrate(1.3)
    assert len(set(teacher.scale_)) == 2
    teacher.to_glocal(tmp_path / "transform.npz")
    again = Teacher.from_glocal(tmp_path / "transform.npz")
    np.testing.assert_allclose(again.transform(X), teacher.transform(X), atol=1e-5)
    with np.load(tmp_path / "transform.npz") as file:
        layout = {name: (file[name].dtype.str, file[name].shape) for name in file.files}
    assert layout == {
        "weights": ("<f4", (WIDTH, WIDTH)),
        "bias": ("<f4", (WIDTH,)),
        "mean": ("<f8", ()),
        "std": ("<f8", ()),
    }


def test_a_foreign_teacher_labels_features_of_any_backbone(
    tmp_path: Path, world: World, store_of: Callable[..., FeatureStore]
) -> None:
    written(tmp_path / "transform.npz")
    found = label(store_of(world.X), tmp_path / "transform.npz", out=tmp_path / "labels", n=40, clusters=4)
    Z = Teacher.load(tmp_path / "transform.npz").transform(world.X.astype(np.float32))
    first = found.indices[0]
    assert found.similarities is not None
    assert found.similarities[0, 0] == pytest.approx(float(Z[first[0]] @ Z[first[1]]), rel=1e-4)
    narrow = store_of(world.X[:, :5], "narrow")
    with pytest.raises(LikemindError, match="takes features of width 8"):
        label(narrow, tmp_path / "transform.npz", out=tmp_path / "others", n=40, clusters=4)


class Bomb:
    def __reduce__(self) -> Any:
        return (open, ("executed", "w"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": None}, r"has no array 'weights' \(it has bias, mean, std\): it is not gLocal's"),
        ({"std": None}, "has no array 'std'"),
        ({"weights": np.zeros((8, 7), np.float32)}, r"weights have the shape \(8, 7\), a square is needed"),
        ({"weights": np.zeros(8, np.float32)}, r"weights have the shape \(8,\), a square is needed"),
        ({"bias": np.zeros(7, np.float32)}, r"bias has the shape \(7,\), \(8,\) is needed"),
        ({"mean": np.zeros(8)}, r"mean has the shape \(8,\), \(\) is needed"),
        ({"weights": np.full((8, 8), np.nan, np.float32)}, "a value is not finite"),
        ({"mean": np.float64("inf")}, "a value is not finite"),
        ({"std": np.float64(0.0)}, "std is not above 0"),
        ({"weights": np.full((8, 8), "a")}, "a value is not finite"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LikemindError, match=words) as error:
        Teacher.load(written(tmp_path / "transform.npz", **changes))
    assert "transform.npz" in str(error.value)


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = np.empty((), dtype=object)
    bomb[()] = Bomb()
    path = tmp_path / "transform.npz"
    np.savez(path, **published(bias=bomb))
    for data in (path.read_bytes(), pickle.dumps(Bomb())):
        path.write_bytes(data)
        with pytest.raises(LikemindError, match=r"transform\.npz is not a readable \.npz of plain arrays"):
            Teacher.load(path)
    assert not (tmp_path / "executed").exists()


def test_what_is_not_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "transform.npz"
    plain = io.BytesIO()
    np.save(plain, np.zeros((8, 8)))
    whole = written(tmp_path / "whole.npz").read_bytes()
    middle = len(whole) // 3
    broken = whole[:middle] + bytes(64) + whole[middle + 64 :]
    for data in (b"", b"weights", plain.getvalue(), whole[:-30], whole[:200], broken):
        path.write_bytes(data)
        with pytest.raises(LikemindError, match=r"transform\.npz is not a readable \.npz of plain arrays"):
            Teacher.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
        archive.writestr("mean", "no array either")
    with pytest.raises(LikemindError, match="has no array 'weights'"):
        Teacher.load(path)
    with pytest.raises(LikemindError, match=r"none\.npz does not exist"):
        Teacher.load(tmp_path / "none.npz")


def test_the_file_that_is_published_under_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "transform.npz")
    Teacher.load(path)
    assert not caplog.text
    monkeypatch.setattr(glocal, "_DINO_B16", glocal.git_blob(path.read_bytes()))
    Teacher.load(path)
    assert "is the transform of DINO ViT-B/16, which is published under the name of DINOv2 ViT-B/14 too" in caplog.text


def test_names_of_blobs_are_gits() -> None:
    assert glocal.git_blob(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert glocal.git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"

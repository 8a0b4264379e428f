"""`likemind data`: stand-ins in every published layout, and a local server for what may be downloaded."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.io import savemat
from test_breeds import write as write_breeds
from test_imagenet import photographs, tiny
from typer.testing import CliRunner

from likemind.cli import app, run
from likemind.datasets import catalogue, obtain
from likemind.datasets.catalogue import CATALOGUE, Breeds, ImageNetA
from likemind.datasets.download import Archive
from likemind.datasets.imagenet import imagenet_classes
from likemind.datasets.obtain import data
from likemind.errors import LikemindError
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from public_files import PublicServer


def answers(folder: Path, name: str, text: str) -> None:
    folder.mkdir()
    (folder / name).write_text(text)


def levels(folder: Path) -> None:
    folder.mkdir()
    paths = {f"image{k}Path": f"n0{k}_1.JPEG" for k in (1, 2, 3)}
    trial = paths | {"selected_image": "n03_1.JPEG", "triplet_type": "between_class", "exp_trial_type": "exp_trial"}
    import pickle

    (folder / "pruned_dataset.pkl").write_bytes(pickle.dumps({"p1": [trial, trial], "p2": [trial]}, protocol=4))


def labels(folder: Path) -> None:
    folder.mkdir()
    np.savez(folder / "alignet_valid.npz", filenames=np.full((5, 3), "a"), similarities=np.zeros((5, 3)))


def nights(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.csv").write_text("id,ref_path\n0,ref/000/000.png\n1,ref/000/001.png\n")
    for name in ("ref/000/000", "ref/000/001", *(f"distort/000/00{i}_{k}" for i in (0, 1) for k in (0, 1))):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def ratings(folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "animals.npy", np.zeros((4, 4)))
    savemat(folder / "various.mat", {"m": np.zeros((3, 3))})


def imagenet(folder: Path) -> None:
    photographs(folder / "train", imagenet_classes())
    photographs(folder / "val", imagenet_classes())


def hierarchy(folder: Path) -> None:
    folder.mkdir()
    write_breeds(folder)


def one_in_each(classes: list[str]) -> Callable[[Path], Path]:
    return lambda folder: photographs(folder, classes)


STAND_INS: dict[str, tuple[Callable[[Path], object], dict[str, int]]] = {
    "breeds": (hierarchy, {"classes": 2, "nodes": 4}),
    "imagenet": (imagenet, {"classes": 1000, "train": 1000, "val": 1000}),
    "tiny-imagenet": (tiny, {"classes": 2, "train": 6, "val": 2}),
    "imagenet-a": (one_in_each([*imagenet_classes("imagenet_a")]), {"classes": 200, "photographs": 200}),
    "imagenet-r": (one_in_each([*imagenet_classes("imagenet_r")]), {"classes": 200, "photographs": 200}),
    "imagenet-v2": (one_in_each([*map(str, range(1000))]), {"classes": 1000, "photographs": 1000}),
    "imagenet-sketch": (one_in_each([*imagenet_classes()]), {"classes": 1000, "photographs": 1000}),
    "things": (lambda folder: answers(folder, "trainset.txt", "0 1 2\n3 4 5\n"), {"files": 1, "answers": 2}),
    "levels": (levels, {"files": 1, "answers": 3, "people": 2}),
    "alignet": (labels, {"files": 1, "triplets": 5}),
    "nights": (nights, {"triplets": 2, "pictures": 6}),
    "peterson": (ratings, {"files": 2}),
    "king": (ratings, {"files": 2}),
    "cichy118": (ratings, {"files": 2}),
}


def test_every_data_set_is_described() -> None:
    assert set(STAND_INS) | {"photographs"} == set(CATALOGUE)
    for name, known in CATALOGUE.items():
        assert known.name == name
        for fact in ("title", "licence", "source", "version", "layout"):
            assert getattr(known, fact), (name, fact)
        assert bool(known.checksum) == known.may_be_downloaded


@pytest.mark.parametrize("name", STAND_INS)
def test_a_folder_as_published_is_counted(name: str, tmp_path: Path) -> None:
    make, counts = STAND_INS[name]
    make(tmp_path / name)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    (found,) = data(name, sets=tmp_path)
    assert (found.state, found.counts, found.path) == ("there", counts, tmp_path / name)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", STAND_INS)
def test_an_empty_folder_is_wrong_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(LikemindError, match=str(tmp_path / name)) as caught:
        data(name, sets=tmp_path)
    listed = {one.name: one for one in data(sets=tmp_path)}
    assert (listed[name].state, listed[name].problem) == ("wrong", str(caught.value))
    assert {one.state for other, one in listed.items() if other != name} == {"ask", "download"}


@pytest.mark.parametrize("name", [name for name, known in CATALOGUE.items() if not known.may_be_downloaded])
def test_who_is_to_be_asked(name: str, tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="may not be downloaded by a program: get it from") as caught:
        data(name, sets=tmp_path / "nothing")
    assert str(tmp_path / "nothing" / name) in str(caught.value)
    assert CATALOGUE[name].source in str(caught.value)
    assert not (tmp_path / "nothing").exists()


def test_damaged_files(tmp_path: Path) -> None:
    answers(tmp_path / "alignet", "alignet_train.npz", "no zip")
    with pytest.raises(LikemindError, match="is not AligNet's file of triplets"):
        data("alignet", sets=tmp_path)
    nights(tmp_path / "nights")
    (tmp_path / "nights" / "distort" / "000" / "000_1.png").unlink()
    with pytest.raises(LikemindError, match=r"2 pictures in ref/ and 3 in distort/ for 2 triplets"):
        data("nights", sets=tmp_path)
    with pytest.raises(LikemindError, match="no data set 'imagenet-z': choose one of photographs, breeds"):
        data("imagenet-z", sets=tmp_path)


def test_the_photographs_where_they_are(shared_data: Path) -> None:
    (found,) = data("photographs", sets=shared_data)
    assert found.path == shared_data
    assert found.counts == {"imagenet": 1000, "caltech101": 2904, "tiny": 16000}
    (found,) = data("breeds", sets=shared_data)
    assert found.counts == {"classes": 890, "nodes": 1328}


def archive(classes: list[str], inside: str = "imagenet-a/") -> bytes:
    picture, buffer = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "green").save(picture, "JPEG")
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name in [f"{inside}README.txt", *(f"{inside}{wnid}/0_0.jpg" for wnid in classes)]:
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            out.addfile(member, io.BytesIO(picture.getvalue()))
    return buffer.getvalue()


def offer(server: PublicServer, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    offered = Archive("imagenet-a", "hendrycks/natural-adv-examples", "", "imagenet-a.tar", sha256, len(content))
    monkeypatch.setattr(ImageNetA, "archive", (offered, server.settings()))
    server.files["imagenet-a.tar"] = content


def test_an_archive_is_fetched_checked_and_put_in_its_place(
    server: PublicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, archive([*imagenet_classes("imagenet_a")]))
    root = tmp_path / "sets"
    (found,) = data("imagenet-a", sets=root)
    assert found.counts == {"classes": 200, "photographs": 200}
    assert [path.name for path in root.iterdir()] == ["imagenet-a"]
    assert len([path for path in (root / "imagenet-a").iterdir() if path.is_dir()]) == 200
    assert data("imagenet-a", sets=root) == [found]
    assert server.asked == ["imagenet-a.tar"]


@pytest.mark.parametrize("fault", ["corrupt", "404", "truncated"])
def test_a_bad_download_leaves_nothing_and_the_same_call_goes_on(
    fault: str, server: PublicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, archive([*imagenet_classes("imagenet_a")]))
    server.faults["imagenet-a.tar"] = [fault] * 3  # type: ignore[list-item]
    with pytest.raises(LikemindError, match=r"imagenet-a\.tar"):
        data("imagenet-a", sets=tmp_path)
    assert not (tmp_path / "imagenet-a").exists()
    server.faults.clear()
    (found,) = data("imagenet-a", sets=tmp_path)
    assert found.state == "there"
    assert [path.name for path in tmp_path.iterdir()] == ["imagenet-a"]


def test_an_interrupted_unpacking_begins_again(
    server: PublicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, archive([*imagenet_classes("imagenet_a")]))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(obtain, "_settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data("imagenet-a", sets=tmp_path)
    assert [one.state for one in data(sets=tmp_path) if one.name == "imagenet-a"] == ["download"]
    (found,) = data("imagenet-a", sets=tmp_path)
    assert found.counts["classes"] == 200
    assert server.asked == ["imagenet-a.tar"]
    assert [path.name for path in tmp_path.iterdir()] == ["imagenet-a"]


def test_an_archive_that_lacks_classes_or_climbs_is_refused(
    server: PublicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, archive([*imagenet_classes("imagenet_a")][:190]))
    with pytest.raises(LikemindError, match="of the 200 classes of ImageNet-A, 10 have no folder"):
        data("imagenet-a", sets=tmp_path / "short")
    offer(server, monkeypatch, archive(["x"], inside="../climbed/"))
    with pytest.raises(LikemindError, match="cannot be unpacked"):
        data("imagenet-a", sets=tmp_path / "climbing")
    assert not list(tmp_path.rglob("climbed"))
    for place in ("short", "climbing"):
        assert not (tmp_path / place / "imagenet-a").exists()


def test_files_of_a_repository(server: PublicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "published"
    place.mkdir()
    write_breeds(place)
    for source in Breeds().sources:
        server.files[source.name] = (place / source.path.rpartition("/")[2]).read_bytes()
    with pytest.raises(LikemindError, match="has other bytes than expected"):
        data("breeds", sets=tmp_path / "sets", server=server.settings())
    changed = [
        type(source)(**vars(source) | {"sha256": hashlib.sha256(server.files[source.name]).hexdigest()})
        for source in Breeds().sources
    ]
    monkeypatch.setattr(Breeds, "sources", changed)
    (found,) = data("breeds", sets=tmp_path / "sets", server=server.settings())
    assert found.counts == {"classes": 2, "nodes": 4}
    assert sorted(path.name for path in (tmp_path / "sets" / "breeds").iterdir()) == sorted(
        path.name for path in place.iterdir()
    )
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["breeds"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ratings(tmp_path / "king")
    shown = CliRunner().invoke(app, ["data", "--sets", str(tmp_path)])
    assert shown.exit_code == 0
    assert "king: Free arrangements" in shown.output
    assert "  there: 2 files" in shown.output
    assert "not there; `likemind data imagenet-a` downloads it" in shown.output
    assert "not there; no program may download it" in shown.output
    one = CliRunner().invoke(app, ["data", "king", "--sets", str(tmp_path), "--json"])
    told = json.loads(one.output)["data"]
    assert [entry["name"] for entry in told] == ["king"]
    assert told[0]["counts"] == {"files": 2}
    assert run(app, ["data", "imagenet", "--sets", str(tmp_path)]) == 2
    assert "get it from https://image-net.org, with an account, and put it at" in capsys.readouterr().err


def test_no_host_but_the_sources_own() -> None:
    archives = [known.archive for known in CATALOGUE.values() if known.archive]
    assert {server.base_url for _, server in archives} == {"https://people.eecs.berkeley.edu/~hendrycks"}
    assert len(archives) == 2
    assert catalogue.Breeds.source.startswith("https://github.com/MadryLab/")


def test_levels_of_the_pack_are_counted(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "levels").symlink_to(shared_data / "levels_example")
    (found,) = data("levels", sets=tmp_path)
    assert found.counts == {"files": 1, "answers": 12000, "people": 40}


def test_shifts_find_a_pack_in_the_cache(tmp_path: Path) -> None:
    from likemind.datasets.shifts import ShiftSets

    with pytest.raises(LikemindError, match="has none of the data sets that robustness is tested on"):
        ShiftSets(tmp_path)
    with pytest.raises(LikemindError, match="is no folder of data sets"):
        ShiftSets(tmp_path / "nothing")
    picture = photographs(tmp_path / "p", ["a"]) / "a" / "0.JPEG"
    rows = [
        {"id": f"{name}/{split}", "class_name": name, "split": split, "image": picture.read_bytes()}
        for name in ("cup", "Faces_easy", "ant")
        for split in ("train", "test")
    ]
    photos = tmp_path / "photographs" / "pack" / "photos"
    photos.mkdir(parents=True)
    write_table(photos / "caltech101.parquet", pa.Table.from_pylist(rows))
    found = ShiftSets(tmp_path)
    assert found.corrupts
    assert found.shifts == []
    assert found.caltech("test").images.ids == ["cup/test", "ant/test"]

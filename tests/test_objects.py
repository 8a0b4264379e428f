"""Inputs and outputs at URLs: in memory, by ``file:``, and at an S3 server that speaks HTTP."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from features.conftest import Small
from likemind.artifacts import read_run
from likemind.backbones.base import Backbone
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.features.store import FeatureStore
from likemind.fetched import fetched
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing
from likemind.objects import below, mirror_of, path_of, url_of
from likemind.pseudolabels.label import label
from likemind.published import Published, artifact
from likemind.teacher.teacher import Teacher
from pseudolabels.conftest import make_store, make_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = ["pooled", "first:mean"]
BUCKET = "likemind-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A bucket at an S3 server on this machine, told to clients by the environment alone."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}"
    started.stop()


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of this test's own in a store, and an empty cache."""
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "cache"))
    start = "memory://place" if request.param == "memory" else request.getfixturevalue("server")
    return f"{start}/{tmp_path.name}"


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone("small", Small().eval(), Preprocessing(size=8), 5, {"architecture": "small"})


def pictures(folder: Path, count: int = 5) -> Path:
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        (folder / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / "a" / f"{number}.png")
    return folder


def put(path: Path, url: str) -> str:
    store, place = fsspec.url_to_fs(url)
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            name = file.relative_to(path).as_posix()
            store.pipe_file(place if path.is_file() else f"{place}/{name}", file.read_bytes())
    return url


def listed(url: str) -> dict[str, bytes]:
    store, place = fsspec.url_to_fs(url)
    store.invalidate_cache()
    return {name.removeprefix(place).lstrip("/"): store.cat_file(name) for name in store.find(place)}


def without_run(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.endswith("run.json")}


def local(out: Path) -> dict[str, bytes]:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another machine."""
    number = len(list(tmp_path.glob("cache*")))
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / f"cache-{number}"))


# --- what is a URL


def test_urls_and_paths() -> None:
    assert url_of("s3://b/x/") == url_of(Path("s3://b/x")) == "s3://b/x"
    assert url_of("memory:/x") == "memory://x"
    assert url_of(Path("photos")) is url_of("C:/photos") is url_of("file:///x") is url_of("a:b") is None
    assert path_of("file:///x/y") == path_of(Path("file:///x/y")) == Path("/x/y")
    assert below("s3://b", "x") == "s3://b/x"
    assert below("runs", "x") == below(Path("runs"), "x") == Path("runs/x")
    assert mirror_of("s3://b/x").name == "x"
    assert mirror_of("s3://b/x") != mirror_of("s3://c/x")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nowhere://x/y", r"nowhere://x/y is at no kind of store that is known \(nowhere\)"),
        ("ftp://ann:secret@host/x", "a ftp address holds a password: take it out, and put it in the environment"),
        ("memory://nothing/here", "memory://nothing/here does not exist: check the address"),
    ],
)
def test_addresses_that_lead_nowhere(url: str, said: str) -> None:
    with pytest.raises(LikemindError, match=f"^{said}") as caught:
        open_images(url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(LikemindError, match=r"^gs://b/f needs the package gcsfs: pip install gcsfs$"):
        FeatureStore.load("gs://b/f")
    code = textwrap.dedent("""
        import sys
        sys.modules["s3fs"] = None
        from likemind.cli import app, run
        sys.exit(run(app, sys.argv[1:]))
    """)
    line = [sys.executable, "-c", code, "label", "s3://b/f", "teacher", "-n", "9", "--out", "out"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "likemind: s3://b/f needs the package s3fs: pip install 'likemind[s3]'\n"
    assert not list(tmp_path.iterdir())


def test_file_urls_are_paths(tmp_path: Path, backbone: Backbone) -> None:
    made = pictures(tmp_path / "in")
    store = embed(f"file://{made}", backbone, out=f"file://{tmp_path / 'out'}")
    assert store.path == tmp_path / "out"
    assert FeatureStore.load(Path(f"file://{tmp_path}/out"), verify=True).ids == store.ids


# --- inputs


def test_images_at_a_url(root: str, tmp_path: Path) -> None:
    here = open_images(pictures(tmp_path / "in"))
    there = open_images(put(tmp_path / "in", f"{root}/in"))
    assert there.ids == here.ids
    assert there.key() == here.key()
    assert [there.read(k).tobytes() for k in range(5)] == [here.read(k).tobytes() for k in range(5)]
    assert there.origin == f"{root}/in"


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_one_file_at_a_url(root: str, tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, file = pictures(tmp_path / "in"), tmp_path / f"x.{kind}"
    if kind == "tar":
        subprocess.run(["tar", "-cf", str(file), "--sort=name", "a"], cwd=folder, check=True)
    else:
        files = sorted(path for path in folder.rglob("*.png"))
        data = [path.read_bytes() for path in files]
        pq.write_table(pa.table({"id": [path.name for path in files], "image": data}), file)
    there, here = open_images(put(file, f"{root}/x.{kind}")), open_images(file)
    assert (there.ids, there.key()) == (here.ids, here.key())


def test_only_what_changed_is_fetched_again(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(pictures(tmp_path / "in"), f"{root}/in")
    store, place = fsspec.url_to_fs(url)
    asked: list[str] = []
    real = store.get

    def get(names: list[str], *args: Any, **options: Any) -> Any:
        asked.extend(names)
        return real(names, *args, **options)

    monkeypatch.setattr(store, "get", get)
    open_images(url)
    assert len(asked) == 5
    asked.clear()
    open_images(url)
    assert not asked
    Image.new("RGB", (9, 9), "red").save(tmp_path / "in" / "a" / "2.png")
    put(tmp_path / "in" / "a" / "2.png", f"{url}/a/2.png")
    store.rm_file(f"{place}/a/4.png")
    images = open_images(url)
    assert [name.rpartition("/")[2] for name in asked] == ["2.png"]
    assert images.ids == [f"a/{k}.png" for k in range(4)]
    assert images.read(2).getpixel((0, 0)) == (255, 0, 0)
    (images.path / "a" / "1.png").write_bytes(b"short")
    assert open_images(url).read(1).size == (12, 10)


def test_a_fetch_that_is_cut_off_continues(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from likemind import fetched as module

    monkeypatch.setattr(module, "_TOGETHER", 2)
    url = put(pictures(tmp_path / "in"), f"{root}/in")
    store, _ = fsspec.url_to_fs(url)
    real, asked = store.get, []

    def get(names: list[str], *args: Any, **options: Any) -> Any:
        asked.append(names)
        if len(asked) == 2:
            raise OSError("the line is down")
        return real(names, *args, **options)

    monkeypatch.setattr(store, "get", get)
    with pytest.raises(LikemindError, match=r"in cannot be read \(the line is down\): check the address, the network"):
        open_images(url)
    assert len(open_images(url)) == 5
    assert [len(names) for names in asked] == [2, 2, 2, 1]


def test_names_that_lead_out_of_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    run = {"key": "k", "verb": "embed", "files": {"../../evil.txt": [4, "0"]}}
    store.pipe_file("/out-of/run.json", json.dumps(run).encode())
    with pytest.raises(LikemindError, match=r"an object with an unsafe name \(\.\./\.\./evil\.txt\)"):
        FeatureStore.load("memory://out-of")
    assert not list(tmp_path.rglob("evil.txt"))


# --- outputs


@pytest.mark.parametrize("layers", [None, LAYERS], ids=["one", "layers"])
def test_features_at_a_url_are_the_same_bytes(
    root: str, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, layers: Any
) -> None:
    url = put(pictures(tmp_path / "in"), f"{root}/in")
    embed(tmp_path / "in", backbone, out=tmp_path / "out", layers=layers)
    made = embed(url, backbone, out=f"{root}/out", layers=layers)
    assert without_run(listed(f"{root}/out")) == without_run(local(tmp_path / "out"))
    empty_cache(tmp_path, monkeypatch)
    for store in made.values() if isinstance(made, dict) else [made]:
        place = f"{root}/out/{store.path.name}" if layers else f"{root}/out"
        again = FeatureStore.load(place, verify=True)
        assert again.key == store.key
        np.testing.assert_array_equal(again.features, store.features)


def test_labels_at_a_url_are_the_same_bytes(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    store, teacher = make_store(tmp_path / "f", X, "a" * 64), make_teacher(tmp_path / "t", 5, "a" * 64)
    asked: dict[str, Any] = {"n": 300, "clusters": 6, "npz": True}
    label(store, teacher, out=tmp_path / "l", **asked)
    f, t = put(tmp_path / "f", f"{root}/f"), put(tmp_path / "t", f"{root}/t")
    found = label(f, t, out=f"{root}/l", **asked)
    assert without_run(listed(f"{root}/l")) == without_run(local(tmp_path / "l"))
    assert Teacher.load(t).key == teacher.key
    empty_cache(tmp_path, monkeypatch)
    again = label(f, t, out=f"{root}/l", **asked, verify=True)  # done already: it is fetched
    np.testing.assert_array_equal(again.indices, found.indices)


def test_a_teacher_of_glocals_at_a_url(root: str, tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "t", 5, "")
    teacher.to_glocal(tmp_path / "transform.npz")
    url = put(tmp_path / "transform.npz", f"{root}/transform.npz")
    assert Teacher.load(url).key == Teacher.load(tmp_path / "transform.npz").key


def make(url: str, seed: int = 0, *, names: tuple[str, ...] = ("a.txt", "b/c.txt"), overwrite: bool = False) -> bool:
    """Write a small artifact; return whether there was nothing to do."""
    with artifact(url, verb="count", config={"seed": seed}, inputs={}, overwrite=overwrite) as work:
        if not work.done:
            for name in names:
                (work.path / name).parent.mkdir(exist_ok=True)
                (work.path / name).write_text(f"{name} {seed}")
        return work.done


def test_the_same_is_skipped_and_another_refused(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{root}/out"
    assert not make(url)
    assert set(listed(url)) == {"a.txt", "b/c.txt", "run.json"}
    for _ in range(2):
        with caplog.at_level("INFO", "likemind"):
            assert make(url)
        assert f"{url}: unchanged, nothing to do" in caplog.text
        with pytest.raises(LikemindError, match="out already holds something else: choose another --out, or pass"):
            make(url, 1)
        empty_cache(tmp_path, monkeypatch)
    assert not make(url, 1, names=("a.txt",), overwrite=True)
    assert set(listed(url)) == {"a.txt", "run.json"}
    assert read_run(fetched(url), verify=True)["config"] == {"seed": 1}


def test_what_is_not_ours_is_never_replaced(root: str, tmp_path: Path) -> None:
    url = put(pictures(tmp_path / "in"), f"{root}/in")
    for overwrite in (False, True):
        with pytest.raises(LikemindError, match="in holds files that likemind did not write: choose another --out"):
            make(url, overwrite=overwrite)
    assert len(listed(url)) == 5
    assert not make(f"{root}/in-beside")


def test_a_damaged_output_is_said_and_mended(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{root}/out"
    make(url)
    store, place = fsspec.url_to_fs(url)
    store.rm_file(f"{place}/a.txt")
    with pytest.raises(LikemindError, match="out is damaged: pass --overwrite"):
        make(url)
    make(url, overwrite=True)
    assert listed(url)["a.txt"] == b"a.txt 0"
    store.pipe_file(f"{place}/a.txt", b"a.txt 1")  # a byte flipped: sizes agree, hashes do not
    assert make(url)
    empty_cache(tmp_path, monkeypatch)
    with pytest.raises(LikemindError, match=r"a\.txt is not the file that was announced"):
        fetched(url)


@pytest.mark.parametrize("number", range(1, 7))
def test_an_upload_that_is_cut_off_continues(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whatever is asked of the store fails once: nobody sees half an artifact, and the same command ends it."""
    url = f"{root}/out"
    make(url, 1, names=("old.txt",))
    store, calls = fsspec.url_to_fs(url)[0], 0

    def failing(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError("the line is down")
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put_file", "pipe_file", "rm_file"):
            patch.setattr(store, name, failing(getattr(store, name)))
        with pytest.raises(LikemindError, match=r"out cannot be written \(the line is down\): .* it will continue"):
            make(url, overwrite=True)
    files = listed(url)
    if "run.json" in files:
        assert json.loads(files["run.json"])["config"]["seed"] in ((0, 1) if number == 6 else (1,))
    make(url, overwrite=True)
    assert set(listed(url)) - {"partial.json"} == {"a.txt", "b/c.txt", "run.json"}
    assert make(url)
    empty_cache(tmp_path, monkeypatch)
    assert (fetched(url) / "b/c.txt").read_text() == "b/c.txt 0"


def test_two_writers(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{root}/out"
    with artifact(url, verb="count", config={"seed": 0}, inputs={}) as work:
        assert isinstance(work, Published)
        (work.path / "a.txt").write_text("a")
        with pytest.raises(LikemindError, match="another process is writing"):
            make(url)
        empty_cache(tmp_path, monkeypatch)  # another machine
        with pytest.raises(LikemindError, match="out holds an unfinished run with other settings or inputs"):
            make(url, 1)
    assert set(listed(url)) == {"a.txt", "run.json"}


def test_nothing_is_left_of_a_mistake(root: str) -> None:
    url = f"{root}/out"
    with pytest.raises(LikemindError, match="no such thing"), artifact(url, verb="count", config={}, inputs={}):
        raise LikemindError("no such thing")
    assert listed(url) == {}
    assert not mirror_of(url).with_name("out.partial").exists()


# --- the command line and Ray, against the S3 server


@pytest.mark.slow
def test_no_server(server: str, tmp_path: Path) -> None:
    gone = os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "LIKEMIND_CACHE": str(tmp_path / "cache")}
    words = ["label", f"{server}/f", f"{server}/t", "-n", "9", "--out", f"{server}/l"]
    line = [sys.executable, "-m", "likemind", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=gone)
    assert done.returncode == 2, done.stderr
    assert f"{server}/f cannot be read (" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_ray_reads_from_and_writes_to_s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line: images, features, teacher and labels in the bucket; and one local run beside it."""
    pytest.importorskip("ray")
    from likemind.backbones.timm import load_backbone, save_backbone

    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", str(100 << 20))
    torch.manual_seed(0)
    recipe = Preprocessing(size=160)
    save_backbone(load_backbone("test_vit", weights="random", preprocessing=recipe), tmp_path / "backbone")
    put(pictures(tmp_path / "in", 530), f"{server}/in")

    def run(*words: str) -> str:
        line = [sys.executable, "-m", "likemind", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("embed", "in", "backbone", "--out", "f")
    said = run("embed", f"{server}/in", "backbone", "--out", f"{server}/f", "--engine", "ray")
    assert said == f"{server}/f: 530 images × 64\n"
    assert without_run(listed(f"{server}/f")) == without_run(local(tmp_path / "f"))
    make_teacher(tmp_path / "t", 64, FeatureStore.load(tmp_path / "f").fingerprint)
    put(tmp_path / "t", f"{server}/t")
    asked = ("-n", "500", "--clusters", "9")
    run("label", "f", "t", "--out", "l", *asked)
    said = run("label", f"{server}/f", f"{server}/t", "--out", f"{server}/l", "--engine", "ray", *asked)
    assert said.startswith(f"{server}/l: 500 triplets; mean entropy ")
    assert without_run(listed(f"{server}/l")) == without_run(local(tmp_path / "l"))

"""Ray against this process: the same bytes, whoever is killed. One small cluster serves all tests of this module."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from features.test_store import make as make_part
from likemind.artifacts import read_run
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.distributed import engine_of
from likemind.errors import LikemindError
from likemind.features.embed import embed
from likemind.features.store import FeatureStore, joined
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing
from likemind.pseudolabels.label import label
from pseudolabels.conftest import make_store, make_teacher

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from likemind.backbones.base import Backbone

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.skipif(sys.platform == "win32", reason="processes are killed as POSIX does"),
]
LAYERS = ["pooled", "blocks.1:mean"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20, address="local")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(1100):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:04d}.png", compress_level=1)
    return folder


def tree(out: Path) -> dict[str, bytes]:
    """All files' bytes; of ``run.json``, which tells how long the run took, its key and the files' hashes."""
    found = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    told = {name: repr([read_run((out / name).parent)[k] for k in ("key", "figures", "files")]) for name in found}
    return {name: told[name].encode() if name.endswith("run.json") else data for name, data in found.items()}


# --- mapping


def test_no_cluster_at_the_address(tmp_path: Path, pictures: Path, backbone: Backbone) -> None:
    with pytest.raises(LikemindError, match=r"no working Ray cluster at auto .*check --address"):
        embed(pictures, backbone, out=tmp_path / "out", engine="ray", address="auto")
    assert not (tmp_path / "out").exists()


def squared(plan: dict[str, Any], index: int) -> tuple[int, int, int, int]:
    from threadpoolctl import threadpool_info

    threads = max([torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())])
    return plan["power"] and index ** plan["power"], os.getpid(), id(plan), threads


@pytest.mark.usefixtures("cluster")
def test_every_index_once_by_workers_that_keep_the_plan() -> None:
    with engine_of("ray") as over:
        found = dict(over(squared, {"power": 2}, range(3, 40)))
        assert list(over(squared, {}, [])) == []
    assert {index: value for index, (value, *_) in found.items()} == {index: index**2 for index in range(3, 40)}
    workers = {pid for _, pid, _, _ in found.values()}
    assert os.getpid() not in workers
    assert len({(pid, plan) for _, pid, plan, _ in found.values()}) == len(workers)
    assert {threads for *_, threads in found.values()} == {1}
    assert ray.is_initialized()


def refused(kind: type[Exception], index: int) -> int:
    if index == 2:
        raise kind("no")
    return index


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", [LikemindError, OSError])
def test_a_workers_refusal_is_raised_here(kind: type[Exception]) -> None:
    with engine_of("ray") as over, pytest.raises(kind, match=r"^no$"):
        list(over(refused, kind, range(4)))


# --- the same bytes


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("layers", [None, LAYERS], ids=["one", "layers"])
def test_features_are_the_same_bytes(
    pictures: Path, backbone: Backbone, tmp_path: Path, layers: list[str] | None
) -> None:
    options: dict[str, Any] = {"layers": layers, "dtype": "float16" if layers else "float32"}
    embed(pictures, backbone, out=tmp_path / "here", **options)
    embed(pictures, backbone, out=tmp_path / "ray", engine="ray", **options)
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")


@pytest.mark.usefixtures("cluster")
def test_a_selection_and_bad_images_are_the_same(pictures: Path, backbone: Backbone, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    for file in sorted(pictures.iterdir())[:600]:
        (place / file.name).symlink_to(file)
    (place / "0551.png").unlink()
    (place / "0551.png").write_bytes(b"no picture")
    some = open_images(place).select([f"{number:04d}.png" for number in range(599, 9, -1)])
    with pytest.raises(LikemindError, match=r"0551\.png is not an image of a known kind"):
        embed(some, backbone, out=tmp_path / "ray", engine="ray")
    embed(some, backbone, out=tmp_path / "ray", engine="ray", skip_bad=True)
    embed(some, backbone, out=tmp_path / "here", skip_bad=True)
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")
    assert len(read_run(tmp_path / "ray")["figures"]["left_out"]) == 1


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three shards of rows, two of triplets; two stores, joined."""
    folder, rows = tmp_path_factory.mktemp("labelling"), 140_000
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6))[rng.integers(40, size=rows)] * 2 + rng.normal(size=(rows, 6))
    stores = make_store(folder / "a", X[:, :4], "a" * 64), make_store(folder / "b", X[:, 4:], "b" * 64)
    both = joined(stores)
    teacher = make_teacher(folder / "teacher", 6, both.fingerprint)
    return {"features": [folder / "a", folder / "b"], "teacher": teacher, "n": 1_100_000, "clusters": 40}


@pytest.mark.usefixtures("cluster")
def test_labels_are_the_same_bytes(labelling: dict[str, Any], tmp_path: Path) -> None:
    label(**labelling, out=tmp_path / "here", npz=True)
    label(**labelling, out=tmp_path / "ray", npz=True, engine="ray")
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")
    assert read_run(tmp_path / "ray", verify=True)["figures"]["iterations"] > 2
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("cluster")
def test_a_row_that_a_worker_cannot_label_is_named(labelling: dict[str, Any], tmp_path: Path) -> None:
    X = np.ones((70_000, 6), dtype=np.float32)
    X[66_000, 2] = np.inf
    store = make_store(tmp_path / "features", X, "c" * 64)
    teacher = make_teacher(tmp_path / "teacher", 6, "c" * 64)
    with pytest.raises(LikemindError, match=r"teacher's features of '66000\.png' are not finite"):
        label(store, teacher, out=tmp_path / "l", n=10, clusters=5, engine="ray")
    assert not (tmp_path / "l").exists()
    assert not (tmp_path / "l.partial").exists()


# --- what a worker is sent


def test_plans_are_small(pictures: Path, labelling: dict[str, Any]) -> None:
    import pickle

    images = open_images(pictures)
    assert len(pickle.dumps(images)) < 1000
    assert pickle.loads(pickle.dumps(images)).ids == images.ids
    some = images.select(images.ids[5:2:-1])
    assert pickle.loads(pickle.dumps(some)).ids == some.ids
    store = FeatureStore.load(labelling["features"])
    assert len(pickle.dumps(store)) < 1000
    again = pickle.loads(pickle.dumps(store))
    assert again.ids == store.ids
    np.testing.assert_array_equal(again.features[[3, 1]], store.features[[3, 1]])


def test_what_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    sent = pickle.dumps(open_images(tmp_path / "in"))
    (tmp_path / "in" / "b.png").rename(tmp_path / "in" / "c.png")
    with pytest.raises(LikemindError, match="holds other images than when this run began"):
        pickle.loads(sent)
    store = make_part(tmp_path / "store", ["a", "b"], 3, 1)
    sent = pickle.dumps(store)
    (tmp_path / "store").rename(tmp_path / "old")
    make_part(tmp_path / "store", ["a", "b"], 3, 2)
    with pytest.raises(LikemindError, match="was made again while it was read"):
        pickle.loads(sent)


# --- kills


def kill_workers(times: int, over: threading.Event) -> list[int]:
    """Kill workers while they are at a shard."""
    killed: list[int] = []
    while len(killed) < times and not over.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                title = " ".join(process.cmdline())
                if "Map(shard)" in title and process.pid not in killed:
                    process.kill()
                    killed.append(process.pid)
                    break
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    return killed


def with_kills(work: Callable[[], object], times: int) -> list[int]:
    over, killed = threading.Event(), []
    killer = threading.Thread(target=lambda: killed.extend(kill_workers(times, over)))
    killer.start()
    try:
        work()
    finally:
        over.set()
        killer.join()
    return killed


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_killed_workers_change_nothing(
    pictures: Path, backbone: Backbone, labelling: dict[str, Any], tmp_path: Path
) -> None:
    embed(pictures, backbone, out=tmp_path / "here" / "features")
    label(**labelling, out=tmp_path / "here" / "labels")
    assert with_kills(lambda: embed(pictures, backbone, out=tmp_path / "ray" / "features", engine="ray"), 2)
    assert with_kills(lambda: label(**labelling, out=tmp_path / "ray" / "labels", engine="ray"), 3)
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")


def command(*words: object, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 << 20)}
    line = [sys.executable, "-m", "likemind", *map(str, words)]
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[Any]:
    return psutil.Process(process.pid).children(recursive=True)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the driver; the cluster that it started ends by itself."""
    cluster = family(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(cluster, timeout=180)
    assert not alive


@pytest.mark.slow
def test_a_killed_driver_of_embed(
    pictures: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(backbone, tmp_path / "backbone")
    (tmp_path / "in").mkdir()
    for file in pictures.iterdir():  # five shards
        for copy in "ab":
            (tmp_path / "in" / f"{copy}{file.name}").hardlink_to(file)
    words = ("embed", "in", "backbone", "--out", "ray", "--engine", "ray")
    process = command(*words, cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("ray.partial/shard-*.f32")), process)
    process.send_signal(signal.SIGSTOP)
    second = command(*words, cwd=tmp_path)
    _, said = second.communicate()
    assert (second.returncode, "another process is writing ray" in said) == (2, True)
    kill(process)
    kept = {shard.name: shard.stat().st_mtime_ns for shard in tmp_path.glob("ray.partial/shard-*.f32")}
    again = command(*words, cwd=tmp_path)
    wait_until(lambda: family(again), again)
    assert 0 < len(kept) < 5
    assert kept.items() <= {s.name: s.stat().st_mtime_ns for s in tmp_path.glob("ray.partial/shard-*.f32")}.items()
    assert again.wait() == 0
    monkeypatch.chdir(tmp_path)
    embed("in", "backbone", out="here")
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 4.0])
def test_a_killed_driver_of_label(labelling: dict[str, Any], tmp_path: Path, seconds: float) -> None:
    """While features are transformed, clusters learned, or products taken."""
    first, second = labelling["features"]
    counts = ("-n", labelling["n"], "--clusters", labelling["clusters"], "--npz")
    words = ("label", first, first.parent / "teacher", "--join", second, "--out", "ray", "--engine", "ray", *counts)
    process = command(*words, cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("ray.partial/aligned-*.tmp")), process)
    time.sleep(seconds)
    kill(process)
    assert not (tmp_path / "ray").exists()
    assert (tmp_path / "ray.partial").exists()
    again = command(*words, cwd=tmp_path)
    _, said = again.communicate()
    assert again.returncode == 0, said
    label(**labelling, out=tmp_path / "here", npz=True)
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")
    assert not list(tmp_path.rglob("*.tmp"))


# --- without Ray


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "ray"], "the engine ray needs a package that is not installed"),
        (["--address", "auto"], "the address 'auto' is of use to the engine ray alone"),
    ],
)
def test_one_sentence_and_exit_code_2(tmp_path: Path, words: list[str], said: str) -> None:
    code = textwrap.dedent("""
        import sys
        sys.modules["ray"] = None
        from likemind.cli import app, run
        sys.exit(run(app, sys.argv[1:]))
    """)
    for verb in (["embed", "in", "test_vit"], ["label", "in", "teacher", "-n", "10"]):
        line = [sys.executable, "-c", code, *verb, "--out", str(tmp_path / "out"), *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        (sentence,) = done.stderr.splitlines()
        assert said in sentence
        assert "--engine ray" in sentence or "pip install 'likemind[ray]'" in sentence
    assert not list(tmp_path.iterdir())

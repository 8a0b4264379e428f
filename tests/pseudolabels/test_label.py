from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from likemind.artifacts import read_run
from likemind.choice import PAIRS
from likemind.errors import LikemindError
from likemind.pseudolabels import label as module
from likemind.pseudolabels.label import label, label_figures, load_clusters
from likemind.readers.judgements import read_judgements
from likemind.triplets import Triplets, read_table, write_table

from .conftest import make_store, make_teacher

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Pieces

FAST: dict[str, Any] = {"n": 400, "clusters": 6}
FILES = ("items.parquet", "triplets.parquet", "clusters.parquet")


def dots(Z: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    return np.stack([(Z[triplets[:, a]] * Z[triplets[:, b]]).sum(1) for a, b in PAIRS], axis=1)


def test_labels_are_the_teachers_dot_products(pieces: Pieces, tmp_path: Path) -> None:
    found = label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    assert found.source == "pseudo"
    assert found.items == pieces.store.ids
    assert len(found) == 400
    Z = pieces.teacher.transform(np.asarray(pieces.store.features)).astype(float)
    assert found.similarities is not None
    np.testing.assert_allclose(found.similarities, dots(Z, found.indices), rtol=1e-4, atol=1e-4)
    table = read_table(tmp_path / "l" / "clusters.parquet")
    assert table.column("id").to_pylist() == pieces.store.ids
    groups = table.column("cluster").to_numpy()
    assert len(set(groups.tolist())) == 6
    border = groups[found.indices]
    assert (border[:, 0] == border[:, 1]).all()
    assert (border[:, 2] != border[:, 0]).all()
    figures = read_run(tmp_path / "l", verb="label")["figures"]
    assert figures["cluster_sizes"] == np.bincount(groups).tolist()
    assert figures["mean_entropy"] == pytest.approx(label_figures(found.similarities)["mean_entropy"])


def test_the_control_has_the_untransformed_similarities(pieces: Pieces, tmp_path: Path) -> None:
    control = label(pieces.store, pieces.teacher, out=tmp_path / "c", control=True, **FAST)
    X = (np.asarray(pieces.store.features) - pieces.teacher.mean_) / pieces.teacher.identity_scale_
    assert control.similarities is not None
    np.testing.assert_allclose(control.similarities, dots(X, control.indices), rtol=1e-4, atol=1e-4)
    taught = label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    assert taught.similarities is not None
    assert read_run(tmp_path / "c")["key"] != read_run(tmp_path / "l")["key"]
    Z = pieces.teacher.transform(np.asarray(pieces.store.features))
    assert np.abs(dots(Z, control.indices) - control.similarities).max() > 1


def test_uniform_takes_all_kinds(pieces: Pieces, tmp_path: Path) -> None:
    found = label(pieces.store, pieces.teacher, out=tmp_path / "u", sampling="uniform", **FAST)
    groups = load_clusters(tmp_path / "u", pieces.store.ids)[found.indices]
    assert {len(set(row)) for row in groups.tolist()} == {1, 2, 3}


def test_from_scratch_the_same_bytes_and_another_seed_others(pieces: Pieces, tmp_path: Path) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "a", **FAST)
    label(pieces.store.path, tmp_path / "teacher", out=tmp_path / "b", **FAST)
    label(pieces.store, pieces.teacher, out=tmp_path / "c", seed=1, **FAST)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / FILES[1]).read_bytes() != (tmp_path / "c" / FILES[1]).read_bytes()


def test_the_same_is_skipped_and_another_refused(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("labelled again"))
    with caplog.at_level(logging.INFO, "likemind"):
        again = label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    assert "nothing to do" in caplog.text
    np.testing.assert_array_equal(first.indices, again.indices)
    for change in ({"n": 401}, {"clusters": 5}, {"control": True}, {"seed": 1}, {"sampling": "uniform"}):
        with pytest.raises(LikemindError, match="--overwrite"):
            label(pieces.store, pieces.teacher, out=tmp_path / "l", **(FAST | change))


def test_figures_are_those_of_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(300, 3)).astype(np.float32) * 2
    similarities[:30, 1] = similarities[:30, 0] = similarities[:30].max(1)  # ties of the best two
    entropies, ties = [], 0
    for row in similarities.astype(float):
        p = [math.exp(value - max(row)) for value in row]
        p = [value / sum(p) for value in p]
        entropies.append(-sum(value * math.log(value) for value in p if value > 0))
        best = sorted(row)[::-1]
        ties += best[0] - best[1] <= 1e-6 * max(abs(best[0]), abs(best[1]))
    found = label_figures(similarities)
    assert found["mean_entropy"] == pytest.approx(np.mean(entropies), abs=1e-5)
    assert found["mean_entropy_share"] == pytest.approx(np.mean(entropies) / math.log(3), abs=1e-5)
    assert found["ties"] == pytest.approx(ties / 300)
    ordered = np.sort(similarities.astype(float), axis=1)
    assert found["mean_margin"] == pytest.approx((ordered[:, 2] - ordered[:, 1]).mean(), rel=1e-5)
    for name, values in (("entropy", entropies), ("margin", ordered[:, 2] - ordered[:, 1])):
        assert found[f"{name}_quantiles"] == pytest.approx(np.quantile(values, [0.05, 0.5, 0.95]), abs=1e-5)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert label_figures(similarities) == found
    assert 0.1 <= found["ties"] < 0.15
    counts = np.histogram(entropies, bins=10, range=(0, math.log(3) + 1e-6))[0]
    assert np.abs(np.array(found["entropy_histogram"]) - counts).sum() <= 2  # float32 at a bin's edge
    assert sum(found["entropy_histogram"]) == 300


def test_labels_that_say_nothing_are_warned_of(
    pieces: Pieces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "good", **FAST)
    assert "almost nothing can be learned" not in caplog.text
    pieces.teacher.calibrate(1000.0)
    label(pieces.store, pieces.teacher, out=tmp_path / "bad", **FAST)
    assert "almost nothing can be learned" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": "slurm"}, "engine 'slurm' is not known: choose 'local' or 'ray'"),
        ({"address": "auto"}, "the address 'auto' is of use to the engine ray alone: add --engine ray"),
        ({"sampling": "best"}, "sampling 'best' is not known: choose one of cluster_border, uniform, between_class"),
        ({"n": 0}, "give --n between 1 and that"),
        ({"n": 10**7}, "give --n between 1 and that"),
        ({"clusters": 81}, "80 images cannot be put into 81 clusters"),
        ({"classes": {}}, "cluster_border draws from no classes: leave out --classes, or choose between_class"),
        ({"sampling": "uniform", "classes": {}}, "uniform draws from no classes"),
        ({"sampling": "between_class", "classes": {"0.png": "a"}}, r"no class of 79 images \('1.png', '2.png'"),
        ({"sampling": "within_class", "classes": "nowhere.parquet"}, "nowhere.parquet does not exist"),
    ],
)
def test_impossible_arguments(pieces: Pieces, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(LikemindError, match=words):
        label(pieces.store, pieces.teacher, out=tmp_path / "l", **(FAST | change))
    assert not (tmp_path / "l").exists()
    assert not (tmp_path / "l.partial").exists()


def test_features_of_another_backbone_are_refused(pieces: Pieces, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", np.asarray(pieces.store.features), "b" * 64)
    with pytest.raises(LikemindError, match="another backbone, layer or preprocessing than the teacher"):
        label(other, pieces.teacher, out=tmp_path / "l", **FAST)
    narrow = make_teacher(tmp_path / "narrow", 4, "a" * 64)
    with pytest.raises(LikemindError, match="features of width 4"):
        label(pieces.store, narrow, out=tmp_path / "l", **FAST)


def test_clusters_by_id(pieces: Pieces, tmp_path: Path) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    whole = load_clusters(tmp_path / "l", pieces.store.ids)
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(load_clusters(tmp_path / "l", ["7.png", "3.png"]), whole[[7, 3]])
    with pytest.raises(LikemindError, match=r"knows no cluster of 1 images \('zebra'"):
        load_clusters(tmp_path / "l", ["7.png", "zebra"])


CLASSES = {f"{k}.png": "abcd"[k % 4] for k in range(80)}


@pytest.mark.parametrize(("sampling", "kinds"), [("between_class", 3), ("class_border", 2), ("within_class", 1)])
def test_samplings_of_classes(pieces: Pieces, tmp_path: Path, sampling: str, kinds: int) -> None:
    asked: dict[str, Any] = FAST | {"sampling": sampling}
    found = label(pieces.store, pieces.teacher, out=tmp_path / "c", classes=CLASSES, **asked)
    shown = [[CLASSES[found.items[index]] for index in row] for row in found.indices]
    assert {len(set(row)) for row in shown} == {kinds}
    table = pa.table({"id": list(CLASSES), "category": list(CLASSES.values())})
    write_table(tmp_path / "classes.parquet", table)
    again = label(pieces.store, pieces.teacher, out=tmp_path / "c", classes=tmp_path / "classes.parquet", **asked)
    np.testing.assert_array_equal(again.indices, found.indices)
    with pytest.raises(LikemindError, match="--overwrite"):
        label(pieces.store, pieces.teacher, out=tmp_path / "c", classes=CLASSES | {"3.png": "a"}, **asked)
    of_clusters = label(pieces.store, pieces.teacher, out=tmp_path / "l", **asked)
    groups = load_clusters(tmp_path / "l", pieces.store.ids)[of_clusters.indices]
    assert {len(set(row)) for row in groups.tolist()} == {kinds}


def published_reader(path: Path) -> dict[frozenset[str], tuple[str, dict[frozenset[str], float]]]:
    """The triplets of AligNet's file as its loader reads it: the odd one last, and similarities [s01, s02, s12]."""
    with np.load(path, allow_pickle=False) as file:
        names, similarities, indices = file["filenames"], file["similarities"], file["indices"]
    assert names.shape == similarities.shape == indices.shape
    assert names.dtype.kind == "U"
    assert (similarities.argmax(axis=1) == 0).all()
    found = {}
    for (a, b, c), (ab, ac, bc) in zip(names.tolist(), similarities.tolist(), strict=True):
        pairs = {frozenset((a, b)): ab, frozenset((a, c)): ac, frozenset((b, c)): bc}
        found[frozenset((a, b, c))] = c, pairs
    return found


@pytest.mark.parametrize("control", [False, True])
def test_alignets_own_layout(pieces: Pieces, tmp_path: Path, control: bool) -> None:
    labels = label(pieces.store, pieces.teacher, out=tmp_path / "l", npz=True, control=control, **FAST)
    assert labels.similarities is not None
    wanted = {}
    for row, values in zip(labels.indices.tolist(), labels.similarities.tolist(), strict=True):
        names = [labels.items[index] for index in row]
        pairs = {frozenset((names[a], names[b])): value for (a, b), value in zip(PAIRS, values, strict=True)}
        alike = max(pairs, key=lambda pair: pairs[pair])
        wanted[frozenset(names)] = next(name for name in names if name not in alike), pairs
    assert published_reader(tmp_path / "l" / "alignet.npz") == wanted
    back = read_judgements(tmp_path / "l" / "alignet.npz", items=pieces.store.ids)
    assert isinstance(back, Triplets)
    assert back.similarities is not None
    assert [{back.items[index] for index in row} for row in back.indices] == [
        {labels.items[index] for index in row} for row in labels.indices
    ]
    assert back.similarities.sum() == pytest.approx(labels.similarities.sum())
    assert not (tmp_path / "l" / "aligned.tmp").exists()
    assert set(read_run(tmp_path / "l")["files"]) == {*FILES, "alignet.npz"}


@pytest.mark.parametrize("damaged", ["features/features.npy", "teacher/teacher.safetensors", "l/triplets.parquet"])
def test_a_flipped_byte_is_refused_when_verified(pieces: Pieces, tmp_path: Path, damaged: str) -> None:
    label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    data = bytearray((tmp_path / damaged).read_bytes())
    data[-9] ^= 1
    (tmp_path / damaged).write_bytes(data)
    given = {"features": tmp_path / "features", "teacher": tmp_path / "teacher"}
    for features in (given["features"], pieces.store):
        with pytest.raises(LikemindError, match=f"{damaged} is not the file that was written"):
            label(features, given["teacher"], out=tmp_path / "l", verify=True, **FAST)


def start(out: Path, *arguments: object) -> tuple[subprocess.Popen[bytes], float]:
    """Start the command, and return when it has begun to work on its output."""
    command = [sys.executable, "-m", "likemind", "label", *map(str, arguments), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out.parent / f"{out.name}.partial" / "plan.json").exists():
        time.sleep(0.01)
    return process, time.monotonic()


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """``kill -9`` of the command at ten random moments of its work, again and again on the same output."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 96))[rng.integers(60, size=30_000)] + rng.normal(size=(30_000, 96))
    make_store(tmp_path / "features", X, "a" * 64)
    make_teacher(tmp_path / "teacher", 96, "a" * 64)
    table = pa.table({"id": [f"{k}.png" for k in range(30_000)], "category": [str(k % 50) for k in range(30_000)]})
    write_table(tmp_path / "classes.parquet", table)
    asked = (tmp_path / "features", tmp_path / "teacher", "-n", 300_000, "--clusters", 200, "--npz", "--verify")
    asked += ("--sampling", "class_border", "--classes", tmp_path / "classes.parquet")
    assert start(tmp_path / "first", *asked)[0].wait() == 0
    whole, began = start(tmp_path / "whole", *asked)
    assert whole.wait() == 0
    seconds = time.monotonic() - began
    cut = 0
    for share in np.sort(np.random.default_rng().uniform(0, 1, size=10)):
        process, _ = start(tmp_path / "l", *asked)
        time.sleep(share * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert (tmp_path / "l").exists() != (tmp_path / "l.partial").exists()
        cut += (tmp_path / "l.partial").exists()
    assert cut
    assert start(tmp_path / "l", *asked)[0].wait() == 0
    assert not (tmp_path / "l.partial").exists()
    for name in (*FILES, "alignet.npz"):
        wanted = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "first" / name).read_bytes() == wanted
        assert (tmp_path / "l" / name).read_bytes() == wanted
    assert set(read_run(tmp_path / "l", verify=True)["files"]) == {*FILES, "alignet.npz"}


DRIVER = textwrap.dedent("""
    import sys, time
    from likemind.pseudolabels import label as module
    real = module.write_table
    def slow(*args):
        print("half", flush=True)
        time.sleep(60)
    module.write_table = slow
    module.label(sys.argv[1], sys.argv[2], out=sys.argv[3], n=400, clusters=6)
""")


def test_killed_half_way_it_ends_in_the_same_bytes(pieces: Pieces, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, pieces.store.path, tmp_path / "teacher", tmp_path / "l"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "half\n"
        with pytest.raises(LikemindError, match=rf"another process is writing .*l \(process {process.pid}\): wait"):
            label(pieces.store, pieces.teacher, out=tmp_path / "l", **FAST)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / "l.partial" / "triplets.parquet").exists()
    assert not (tmp_path / "l").exists()
    for out in ("l", "whole"):
        label(pieces.store, pieces.teacher, out=tmp_path / out, **FAST)
    for name in FILES:
        assert (tmp_path / "l" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert isinstance(Triplets.load(tmp_path / "l"), Triplets)

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likemind import artifacts
from likemind.artifacts import Artifact, key_of_path, read_json, read_run, versions, write_atomic, write_json
from likemind.errors import LikemindError
from likemind.hashes import content_hash, content_hashes, key_of

if TYPE_CHECKING:
    from collections.abc import Callable


def count(out: Path, n: int = 3, *, overwrite: bool = False, verb: str = "count", text: str | None = None) -> Artifact:
    with Artifact(out, verb=verb, config={"n": n}, inputs={"a": "1"}, overwrite=overwrite) as work:
        if not work.done:
            (work.path / "deep").mkdir(exist_ok=True)
            (work.path / "n.txt").write_text(text or str(n))
            (work.path / "deep" / "run.json").write_text("a file of the verb's own")
            work.figures["count"] = n
    return work


def tree(folder: Path) -> dict[str, str]:
    """Names and contents, but for the seconds that the run took."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            text = file.read_text()
            if file == folder / "run.json":
                text = json.dumps({k: v for k, v in json.loads(text).items() if k != "seconds"})
            found[file.relative_to(folder).as_posix()] = text
    return found


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_what_is_written_is_whole_and_told(tmp_path: Path) -> None:
    work = count(tmp_path / "out")
    run = read_run(tmp_path / "out", verb="count", verify=True)
    assert run["key"] == work.key
    assert run["config"] == {"n": 3}
    assert run["figures"] == {"count": 3}
    assert run["versions"]["python"] == versions()["python"]
    assert set(run["files"]) == {"n.txt", "deep/run.json"}
    assert names(tmp_path) == {"out"}
    assert names(tmp_path / "out") == {"n.txt", "deep", "run.json"}


def test_the_same_run_is_skipped_and_another_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    count(out)
    before = (out / "run.json").stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "likemind"):
        assert count(out, text="never written").done
    assert "nothing to do" in caplog.text
    assert (out / "run.json").stat().st_mtime_ns == before
    with pytest.raises(LikemindError, match="pass --overwrite"):
        count(out, n=4)
    assert (out / "n.txt").read_text() == "3"
    assert names(tmp_path) == {"out"}


def test_overwrite_keeps_the_old_until_the_new_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(out)
    with Artifact(out, verb="count", config={"n": 4}, inputs={"a": "1"}, overwrite=True) as work:
        (work.path / "n.txt").write_text("4")
        assert (out / "n.txt").read_text() == "3"
        read_run(out, verify=True)
    assert (out / "n.txt").read_text() == "4"
    assert names(tmp_path) == {"out"}


def test_an_error_of_ours_while_overwriting_leaves_the_old(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(out)
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        Artifact(out, verb="count", config={"n": 4}, inputs={}, overwrite=True) as work,
    ):
        (work.path / "half").write_text("half")
        _ = 1 / 0
    assert read_run(out, verify=True)["config"] == {"n": 3}


def test_a_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LikemindError, match=r"likemind count writes to no URL \(s3://b/x\): choose a folder"):
        Artifact("s3://b/x", verb="count", config={}, inputs={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_likemind_did_not_write_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    file = tmp_path / "file"
    file.write_text("a file")
    with pytest.raises(LikemindError, match="did not write"):
        count(folder, overwrite=overwrite)
    with pytest.raises(LikemindError, match="is a file"):
        count(file, overwrite=overwrite)
    assert (folder / "chapter.txt").read_text() == "years of work"
    assert file.read_text() == "a file"


def test_neighbours_with_like_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("out.old", "out.bak", "out.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    count(tmp_path / "out")
    count(tmp_path / "out", n=4, overwrite=True)
    assert names(tmp_path) == {"out", "out.old", "out.bak", "out.tmp"}
    assert (tmp_path / "out.old" / "mine").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    count(tmp_path / "out")
    assert (tmp_path / "out" / "n.txt").read_text() == "3"


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(out: str) -> None:
    with pytest.raises(LikemindError, match="name a folder"):
        count(Path(out))


def interrupted(out: Path, n: int) -> None:
    with pytest.raises(KeyboardInterrupt), Artifact(out, verb="count", config={"n": n}, inputs={"a": "1"}) as work:  # noqa: PT012
        (work.path / "first.txt").write_text("kept")
        raise KeyboardInterrupt


def test_an_interrupted_run_is_continued_by_the_same_command_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out, 3)
    with pytest.raises(LikemindError, match="not finished"):
        read_run(out)
    with pytest.raises(LikemindError, match="other settings or inputs"):
        count(out, n=4)
    with Artifact(out, verb="count", config={"n": 3}, inputs={"a": "1"}) as work:
        assert (work.path / "first.txt").read_text() == "kept"
    assert names(out) == {"first.txt", "run.json"}


def test_overwrite_discards_an_unfinished_run_in_the_same_session(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out, 3)
    with pytest.raises(LikemindError):
        count(out, n=4)
    count(out, n=4, overwrite=True)  # the refusal must not have kept the lock
    assert names(out) == {"n.txt", "deep", "run.json"}


def test_unfinished_work_of_nobody_knows_whom_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "shard").write_text("?")
    with pytest.raises(LikemindError, match="other settings or inputs"):
        count(tmp_path / "out")


def test_a_users_mistake_leaves_nothing_behind_unless_there_is_work_to_keep(tmp_path: Path) -> None:
    def fail(after: str | None) -> None:
        with (  # noqa: PT012
            pytest.raises(LikemindError, match="mine"),
            Artifact(tmp_path / "out", verb="v", config={}, inputs={}) as work,
        ):
            if after:
                (work.path / after).write_text("x")
            raise LikemindError("mine")

    fail(None)
    fail("metrics.jsonl")
    assert names(tmp_path) == set()
    fail("shard-0")
    assert names(tmp_path) == {"out.partial"}


DRIVER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from likemind.artifacts import Artifact
    with Artifact(sys.argv[1], verb="count", config={"n": 3}, inputs={"a": "1"}) as work:
        (work.path / "first.txt").write_text("kept")
        print("working", flush=True)
        time.sleep(60)
""")


def test_two_processes_do_not_write_at_once_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", DRIVER, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "working\n"
        with pytest.raises(
            LikemindError, match=rf"another process is writing .*/out \(process {other.pid}\): wait for it"
        ):
            count(out)
        plan = (tmp_path / "out.partial/plan.json").rename(tmp_path / "plan.json")  # as before its first note
        with pytest.raises(LikemindError, match=r"another process is writing .*/out: wait for it"):
            count(out, overwrite=True)
        plan.rename(tmp_path / "out.partial/plan.json")
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with Artifact(out, verb="count", config={"n": 3}, inputs={"a": "1"}) as work:
        assert (work.path / "first.txt").read_text() == "kept"
    assert (out / "first.txt").read_text() == "kept"


def test_notes_are_for_the_run_that_continues_and_for_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def noted(n: int, **notes: Any) -> None:
        with (  # noqa: PT012
            pytest.raises(KeyboardInterrupt),
            Artifact(out, verb="v", config={"n": n}, inputs={}, overwrite=True) as work,
        ):
            assert work.notes == {}
            (work.path / "first.txt").write_text("kept")
            work.note(**notes)
            raise KeyboardInterrupt

    noted(1, half=True, rows=[1, 2])
    with Artifact(out, verb="v", config={"n": 1}, inputs={}) as work:
        assert work.notes == {"half": True, "rows": [1, 2]}
    assert names(out) == {"first.txt", "run.json"}
    noted(2, half=True)
    noted(3)
    with Artifact(out, verb="v", config={"n": 3}, inputs={}, overwrite=True) as work:
        assert work.notes == {}


@pytest.mark.parametrize(("code", "said"), [(errno.EDQUOT, "Disk quota exceeded"), (errno.EFBIG, "File too large")])
def test_other_limits_are_said_like_a_full_disk(tmp_path: Path, code: int, said: str) -> None:
    work = Artifact(tmp_path / "out", verb="count", config={"n": 3}, inputs={"a": "1"})
    with pytest.raises(LikemindError, match=rf"no room \({said}\) while writing .*out\.partial: free some space"), work:
        raise OSError(code, os.strerror(code))
    count(tmp_path / "out")


class Crash(BaseException):
    """What a power cut is to Python."""


STEPS = ("Path.replace", "Path.open", "Path.unlink", "os.fsync", "shutil.rmtree")


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int, error: Callable[[], BaseException]) -> list[str]:
    """Make the ``number``-th file operation fail instead of being done; return the list of those made."""
    made: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == number:
                raise error()
            return real(*args, **kwargs)

        return step

    owners: dict[str, Any] = {"Path": Path, "os": os, "shutil": artifacts.shutil}
    for name in STEPS:
        owner, attribute = name.split(".")
        monkeypatch.setattr(owners[owner], attribute, wrap(name, getattr(owners[owner], attribute)))
    return made


@pytest.mark.parametrize("replacing", [False, True])
def test_a_crash_at_any_step_is_mended_by_the_same_command(tmp_path: Path, replacing: bool) -> None:
    def prepare(where: Path) -> Path:
        where.mkdir()
        if replacing:
            count(where / "out", n=1)
        return where / "out"

    wanted_out = prepare(tmp_path / "wanted")
    count(wanted_out, overwrite=replacing)
    wanted = tree(wanted_out)
    number, crashed = 0, 0
    while True:
        number += 1
        out = prepare(tmp_path / f"crash-{number}")
        with pytest.MonkeyPatch.context() as patch:
            work = Artifact(out, verb="count", config={"n": 3}, inputs={"a": "1"}, overwrite=replacing)
            made = crash_at(patch, number, Crash)
            try:
                with work:
                    (work.path / "deep").mkdir(exist_ok=True)
                    os.close(os.open(work.path / "n.txt", os.O_CREAT))
                    for name, text in (("n.txt", "3"), ("deep/run.json", "a file of the verb's own")):
                        descriptor = os.open(work.path / name, os.O_CREAT | os.O_WRONLY)
                        os.write(descriptor, text.encode())
                        os.close(descriptor)
                    work.figures["count"] = 3
            except Crash:
                crashed += 1
        if out.exists():  # either the old or the new, and whole
            assert read_run(out, verify=True)["config"]["n"] in ((1, 3) if replacing else (3,)), made
        count(out, overwrite=replacing)
        assert tree(out) == wanted, (number, made)
        assert names(out.parent) == {"out"}, (number, made)
        if len(made) < number:
            break
    assert crashed >= 12


def test_a_crash_between_the_renames_is_mended_even_by_the_command_of_the_old(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(out, n=1)
    out.rename(tmp_path / ".out.replaced")
    assert count(out, n=1).done
    assert (out / "n.txt").read_text() == "1"


def test_a_whole_partial_of_another_run_is_not_published_as_this_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(out, n=1)
    out.rename(tmp_path / "out.partial")  # as after a crash just before the rename
    with pytest.raises(LikemindError, match="other settings or inputs"):
        count(out, n=2)
    assert count(out, n=1).done
    assert (out / "n.txt").read_text() == "1"


@pytest.mark.parametrize("number", range(1, 12))
def test_a_full_disk_at_any_step_is_said_in_a_sentence(tmp_path: Path, number: int) -> None:
    work = Artifact(tmp_path / "out", verb="count", config={"n": 3}, inputs={"a": "1"})
    with pytest.MonkeyPatch.context() as patch:
        made = crash_at(patch, number, lambda: OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(LikemindError, match="disk is full"), work:  # noqa: PT012
            os.close(os.open(work.path / "n.txt", os.O_CREAT))
            with (work.path / "m.txt").open("wb") as file:
                file.write(b"m")
    assert len(made) >= number
    count(tmp_path / "out")
    assert (tmp_path / "out" / "n.txt").read_text() == "3"


@pytest.mark.parametrize(("code", "said"), [(errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")])
def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LikemindError, match=said):
        count(tmp_path / "out")


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LikemindError, match="a file stands there"):
        count(tmp_path / "file" / "out")
    (tmp_path / "out.partial").write_text("x")
    with pytest.raises(LikemindError, match="a file stands there"):
        count(tmp_path / "out")


def test_damage_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(out)
    (out / "n.txt").write_text("4")  # one byte flipped, same size
    assert count(out).done
    with pytest.raises(LikemindError, match=r"n\.txt is not the file"):
        read_run(out, verify=True)
    (out / "n.txt").write_text("44")
    with pytest.raises(LikemindError, match=r"n\.txt is not the file"):
        read_run(out)
    with pytest.raises(LikemindError, match="damaged: pass --overwrite"):
        count(out)
    (out / "n.txt").unlink()
    with pytest.raises(LikemindError, match=r"n\.txt is not the file"):
        read_run(out)


@pytest.mark.parametrize("damage", ["4", "44", None])
def test_overwrite_mends_damage(tmp_path: Path, damage: str | None) -> None:
    out = tmp_path / "out"
    count(out)
    (out / "n.txt").unlink() if damage is None else (out / "n.txt").write_text(damage)
    count(out, overwrite=True)
    assert (out / "n.txt").read_text() == "3"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": 1}', "\udcff"])
def test_a_run_json_that_is_none_is_said_and_mended(tmp_path: Path, content: str) -> None:
    out = tmp_path / "out"
    count(out)
    (out / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(LikemindError, match=r"run\.json"):
        read_run(out)
    with pytest.raises(LikemindError, match="--overwrite"):
        count(out)
    count(out, overwrite=True)
    assert read_run(out, verify=True)["config"] == {"n": 3}


def test_read_run_says_what_is_wrong(tmp_path: Path) -> None:
    count(tmp_path / "out")
    with pytest.raises(LikemindError, match=r"made by `likemind count`.*likemind teach"):
        read_run(tmp_path / "out", verb="teach")
    with pytest.raises(LikemindError, match=r"not an output of `likemind embed`"):
        read_run(tmp_path, verb="embed")
    with pytest.raises(LikemindError, match="not a likemind artifact"):
        read_run(tmp_path / "nowhere")


CONFIG: dict[str, Any] = {
    "verb": "v",
    "config": {"a": 1, "b": [1, 2], "c": None},
    "inputs": {"x": "h"},
    "recipe_version": 1,
}
CHANGES: list[dict[str, Any]] = [
    {"verb": "w"},
    {"config": {"a": 2, "b": [1, 2], "c": None}},
    {"config": {"a": 1, "b": [2, 1], "c": None}},
    {"config": {"a": 1, "b": [1, 2], "c": False}},
    {"config": {"a": 1, "b": [1, 2]}},
    {"config": {"a": "1", "b": [1, 2], "c": None}},
    {"inputs": {"x": "i"}},
    {"inputs": {"y": "h"}},
    {"recipe_version": 2},
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_changes_the_key(tmp_path: Path, change: dict[str, Any]) -> None:
    assert Artifact(tmp_path / "o", **CONFIG).key != Artifact(tmp_path / "o", **(CONFIG | change)).key


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(st.text(), leaves, min_size=1), st.randoms(use_true_random=False))
def test_the_key_does_not_depend_on_the_order_of_fields(config: dict[str, Any], random: Any) -> None:
    shuffled = list(config.items())
    random.shuffle(shuffled)
    assert key_of(config=config) == key_of(config=dict(shuffled))
    name = next(iter(config))
    assert key_of(config=config) != key_of(config=config | {name: [config[name]]})


def test_write_atomic_leaves_the_old_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        crash_at(patch, 2, Crash)
        with pytest.raises(Crash):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == {"f"}


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LikemindError, match="not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(LikemindError, match="does not exist"):
        read_json(tmp_path / "c.json")
    with pytest.raises(LikemindError, match="cannot be read"):
        read_json(tmp_path)


def test_hashes_are_remembered_and_verify_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert content_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    status = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time, other bytes
    assert content_hash(path).startswith("ba7816bf")
    fresh = content_hash(path, verify=True)
    assert not fresh.startswith("ba7816bf")
    assert content_hash(path) == fresh
    path.write_bytes(b"longer")
    assert content_hashes([path, path])[0] not in (fresh, "")


@pytest.mark.parametrize("trouble", ["garbage", "folder", "nowhere"])
def test_hashing_goes_on_without_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("LIKEMIND_CACHE", str(cache))
    if trouble == "garbage":
        (cache / "hashes.sqlite").write_bytes(b"not a database" * 100)
    elif trouble == "folder":
        (cache / "hashes.sqlite").mkdir()
    else:
        monkeypatch.setenv("LIKEMIND_CACHE", str(path / "under-a-file"))
    assert content_hash(path).startswith("ba7816bf")


def test_key_of_path(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    plain = key_of_path(folder)
    (folder / "b").write_text("1")
    more = key_of_path(folder)
    (folder / "b").rename(folder / "c")
    assert len({plain, more, key_of_path(folder), key_of_path(folder / "a")}) == 4
    assert key_of_path(tmp_path / "folder" / "a") == content_hash(folder / "a")
    count(tmp_path / "out")
    assert key_of_path(tmp_path / "out") == read_run(tmp_path / "out")["key"]
    with pytest.raises(LikemindError, match="does not exist"):
        key_of_path(tmp_path / "nowhere")

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from public_files import plain_files

from likemind.datasets.download import WORKERS, Server, Source, download, missing_of
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

    from public_files import Fault, PublicServer

RUN = """
import json, sys
from pathlib import Path
from likemind.datasets.download import Server, Source, download
sources = [Source(**source) for source in json.load(sys.stdin)]
download(sources, Path(sys.argv[1]), server=Server(**json.loads(sys.argv[2])))
"""


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def assert_whole(folder: Path, sources: list[Source], contents: list[bytes]) -> None:
    assert [(folder / source.name).read_bytes() for source in sources] == contents
    assert leftovers(folder) == []


def message(server: PublicServer, sources: list[Source], folder: Path, **settings: float) -> str:
    with pytest.raises(LikemindError) as caught:
        download(sources, folder, server=server.settings(**settings))
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    assert leftovers(folder) == []
    return text


def test_all_arrive_eight_at_a_time(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(5 * WORKERS)
    server.offer(sources, contents)
    server.together = threading.Barrier(WORKERS)
    download(sources, tmp_path, server=server.settings())
    assert server.most == WORKERS == 8
    assert sorted(server.asked) == sorted(source.name for source in sources)
    assert_whole(tmp_path, sources, contents)


def test_what_is_there_is_not_asked_for_again(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(6)
    server.offer(sources, contents)
    download(sources, tmp_path, server=server.settings())
    server.asked.clear()
    download(sources, tmp_path, server=server.settings())
    assert server.asked == []
    (tmp_path / sources[2].name).unlink()
    (tmp_path / sources[4].name).write_bytes(b"something else")
    assert missing_of(sources, tmp_path) == [sources[2], sources[4]]
    download(sources, tmp_path, server=server.settings())
    assert sorted(server.asked) == sorted([sources[2].name, sources[4].name])
    assert_whole(tmp_path, sources, contents)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("how", "settings"),
    [(signal.SIGKILL, {}), (signal.SIGINT, {"timeout": 0.3, "tries": 10_000, "pause": 0.01})],
    ids=["kill -9", "Ctrl-C"],
)
def test_an_interrupted_run_continues(
    server: PublicServer, tmp_path: Path, how: signal.Signals, settings: dict[str, float]
) -> None:
    sources, contents = plain_files(30, size=200_000)
    server.offer(sources, contents)
    server.hold = {source.name for source in sources[12:]}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), json.dumps({"base_url": server.url} | settings)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([asdict(source) for source in sources]))
    process.stdin.close()
    deadline = time.monotonic() + 60
    while not all((tmp_path / source.name).exists() for source in sources[:12]) or not leftovers(tmp_path):
        assert process.poll() is None, "it must be at work"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(timeout=60) == -how
    server.hold.clear()
    server.end.set()
    assert missing_of(sources, tmp_path) == sources[12:]
    server.asked.clear()
    download(sources, tmp_path, server=server.settings())
    assert sorted(server.asked) == sorted(source.name for source in sources[12:])
    assert_whole(tmp_path, sources, contents)


@pytest.mark.parametrize("fault", ["503", "429", "truncated", "silent", "stalling"])
def test_a_failure_that_passes_is_tried_again(server: PublicServer, tmp_path: Path, fault: Fault) -> None:
    sources, contents = plain_files(3, size=300_000)
    server.offer(sources, contents)
    server.faults[sources[1].name] = [fault]
    download(sources, tmp_path, server=server.settings(timeout=1.5))
    assert server.asked.count(sources[1].name) == 2
    assert_whole(tmp_path, sources, contents)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("503", "refuses folder 1/file_1.bin (HTTP 503)"),
        ("truncated", "does not answer as it should (ChunkedEncodingError)"),
        ("silent", "does not answer as it should (ReadTimeout)"),
        ("stalling", "does not answer as it should (ConnectionError)"),
    ],
)
def test_a_failure_that_stays_ends_it(server: PublicServer, tmp_path: Path, fault: Fault, reason: str) -> None:
    sources, contents = plain_files(3, size=300_000)
    server.offer(sources, contents)
    server.faults[sources[1].name] = [fault] * 9
    text = message(server, sources, tmp_path, timeout=0.5)
    assert text.startswith(f"{server.url} {reason}, and 1 of 3 public files are still missing")
    assert server.asked.count(sources[1].name) == 3
    assert missing_of(sources, tmp_path) == [sources[1]]


def test_no_way_in_is_not_tried_again(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(1)
    server.offer(sources, contents)
    server.faults[sources[0].name] = ["403"]
    assert "refuses an odd/näme #1%.bin (HTTP 403)" in message(server, sources, tmp_path)
    assert len(server.asked) == 1


def test_other_bytes_are_refused_and_not_kept(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(3)
    server.offer(sources, contents)
    server.faults[sources[1].name] = ["corrupt"]
    text = message(server, sources, tmp_path)
    assert server.settings().url(sources[1]) in text
    assert f"expected {sources[1].sha256[:12]}…" in text
    assert str(tmp_path / sources[1].name) in text
    assert not (tmp_path / sources[1].name).exists()


def test_a_file_that_is_gone_is_named(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(3)
    server.offer(sources, contents)
    del server.files[sources[0].name]
    text = message(server, sources, tmp_path)
    assert "an%20odd/n%C3%A4me%20%231%25.bin is not there any more (HTTP 404)" in text
    assert f"put the file at {tmp_path / sources[0].name} by hand" in text
    assert server.asked.count(sources[0].name) == 1


def test_without_a_connection_one_sentence_says_all(tmp_path: Path) -> None:
    sources, contents = plain_files(40)
    (tmp_path / sources[3].name).parent.mkdir(parents=True)
    (tmp_path / sources[3].name).write_bytes(contents[3])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LikemindError) as caught:
            download(sources, tmp_path, server=Server(url, pause=0.01))
    text = str(caught.value)
    assert text.startswith(f"{url} does not answer as it should (ConnectionError), and 39 of 40 public files")
    assert "'someone/something'" in text
    assert f"{tmp_path}/OWNER/NAME/COMMIT/PATH by hand, or pass --data-dir" in text


def test_a_folder_that_cannot_be_written_is_named(server: PublicServer, tmp_path: Path) -> None:
    sources, contents = plain_files(2)
    server.offer(sources, contents)
    (tmp_path / "file").touch()
    text = message(server, sources, tmp_path / "file")
    assert text.startswith(f"{tmp_path / 'file'}")
    assert "LIKEMIND_CACHE" in text


def test_the_address_is_quoted() -> None:
    source = Source("p", "a/b", "c0ffee", "d e/f#1%.jpg", "", 0)
    assert Server().url(source) == "https://raw.githubusercontent.com/a/b/c0ffee/d%20e/f%231%25.jpg"

"""Made-up files as the public repositories have them, and a real server that gives them, well or badly."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
from PIL import Image
from scipy.io import savemat

from likemind.datasets import pack
from likemind.datasets.download import Server, Source

Fault = Literal["404", "403", "429", "503", "corrupt", "truncated", "silent", "stalling"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONCEPTS = ("goldfish", "camera_lens", "camera1", "camera2", "face", "ice_cream", "ice")
"""In published order; by the names of the reference photographs, camera1 and camera2 come before camera_lens."""

CLASSES = {"n01443537": "goldfish, Carassius auratus", "n99999998": "crane", "n99999999": "crane"}
ANSWERS = [[0, 1, 2], [4, 6, 5]]


class PublicServer:
    """Serves files at ``/REPOSITORY/COMMIT/PATH``, in threads.

    Attributes:
        files: What it has.
        faults: Name → how the next requests for it go wrong; whole answers follow.
        asked: The names asked for, in order.
        most: How many requests were under way at once, at most.
        together: Where set, each request waits until so many are under way.
        hold: Names whose answers break off in the middle and wait.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.asked: list[str] = []
        self.most = 0
        self.together: threading.Barrier | None = None
        self.hold: set[str] = set()
        self.lock = threading.Lock()
        self.under_way = 0
        self.end = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def settings(self, **changes: Any) -> Server:
        return Server(**{"base_url": self.url, "pause": 0.01} | changes)

    def offer(self, sources: list[Source], contents: list[bytes]) -> None:
        self.files.update({source.name: data for source, data in zip(sources, contents, strict=True)})

    def close(self) -> None:
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(server: PublicServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            name = unquote(self.path).removeprefix("/")
            with server.lock:
                server.asked.append(name)
                fault = server.faults[name].pop(0) if server.faults[name] else None
                server.under_way += 1
                server.most = max(server.most, server.under_way)
            try:
                if server.together is not None:
                    server.together.wait(timeout=60)
                self._answer(name, "stalling" if name in server.hold else fault)
            finally:
                with server.lock:
                    server.under_way -= 1

        def _answer(self, name: str, fault: Fault | None) -> None:
            data = server.files.get(name)
            if fault == "silent":
                server.end.wait()
            elif data is None or (fault is not None and fault.isdecimal()):
                self.send_response(int(fault or "404"))
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                whole = fault not in ("truncated", "stalling")
                self.wfile.write(data[::-1] if fault == "corrupt" else data if whole else data[: len(data) // 2])
                self.wfile.flush()
                if fault == "stalling":
                    server.end.wait()

    return Handler


def source(path: str, data: bytes, part: str = "made-up", repository: str = "someone/something") -> Source:
    return Source(part, repository, COMMIT, path, hashlib.sha256(data).hexdigest(), len(data))


def plain_files(count: int, size: int = 1000) -> tuple[list[Source], list[bytes]]:
    """Files whose bytes mean nothing; the first one's name needs quoting."""
    generator = np.random.default_rng(0)
    contents = [generator.bytes(size) for _ in range(count)]
    paths = ["an odd/näme #1%.bin", *(f"folder {n % 3}/file_{n}.bin" for n in range(1, count))]
    return [source(path, data) for path, data in zip(paths, contents, strict=True)], contents


def photograph(width: int, height: int, *, seed: int = 0, mode: str = "RGB", orientation: int | None = None) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif, comment=b"made up")
    return buffer.getvalue()


def _reference(name: str) -> str:
    return f"{name}_01{'s' if name == 'face' else 'b'}.jpg"


def _concepts() -> bytes:
    columns = [*pack._CONCEPT_COLUMNS.values(), "Definition"]
    lines = ["\t".join(columns)]
    for name in CONCEPTS:
        cells = {"uniqueID": name, "Word": name.replace("_", " "), "Definition": 'a "thing"'}
        cells["All Bottom-up Categories"] = "toy, tool"
        cells["WordNet ID"] = "" if name == "camera2" else f"n{len(name):08d}"
        lines.append("\t".join(_quoted(cells.get(column, "")) for column in columns))
    return ("\r\n".join(lines) + "\r\n").encode()


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if "," in cell or '"' in cell else cell


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _mat(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {"RDM48_triplet": array})
    return buffer.getvalue()


def vice_rows() -> np.ndarray:
    """The made-up embedding in the order of CONCEPTS: row n is all n."""
    return np.repeat(np.arange(len(CONCEPTS), dtype=np.float32)[:, None], 5, axis=1)


def published() -> tuple[list[Source], list[bytes]]:
    """All that the pack is made from, made up, with the names and layouts of what was published."""
    by_name = sorted(range(len(CONCEPTS)), key=lambda row: _reference(CONCEPTS[row]))
    spose = ",image_name,0\n" + "".join(f"{n},{_reference(CONCEPTS[row])},0.5\n" for n, row in enumerate(by_name))
    data = {
        pack.CONCEPTS: _concepts(),
        pack.SPOSE: spose.encode(),
        pack.VICE: _npy(vice_rows()[by_name]),
        pack.ANSWERS: "".join(" ".join(map(str, row)) + "\n" for row in ANSWERS).encode(),
        pack.RDM: _mat(np.array([[0, 0.5, 0.9], [0.5, 0, 0.25], [0.9, 0.25, 0]])),
        pack.RDM_INDEX: _npy(np.array([by_name.index(CONCEPTS.index(name)) for name in ("camera1", "ice", "face")])),
        pack.CLASSES: json.dumps([[n, wnid, name] for n, (wnid, name) in enumerate(CLASSES.items())]).encode(),
    }
    files = [(source(path, content, "data", "some-lab/data"), content) for path, content in data.items()]
    pictures = {
        "n01443537_goldfish.JPEG": photograph(400, 300, seed=1, orientation=6),
        "n99999998_crane.JPEG": photograph(90, 61, seed=2, mode="L"),
        "n99999999_crane.JPEG": photograph(256, 300, seed=3),
    }
    files += [(source(path, content, pack.IMAGENET, "a/net"), content) for path, content in pictures.items()]
    for name, count in (("Faces", 10), ("yin_yang", 3)):
        for n in range(count):
            content = photograph(200 + n, 170, seed=n)
            path = f"101_ObjectCategories/{name}/image_{n:04d}.jpg"
            files.append((source(path, content, pack.CALTECH, "b/tech"), content))
    return [file for file, _ in files], [content for _, content in files]

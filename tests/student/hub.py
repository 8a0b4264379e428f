"""A Hub on this machine: enough of huggingface.co's API for repositories of models to be made, filled and fetched.

Text is committed as it is, ``.safetensors`` go the way of LFS, commits are kept and can be asked for by hash, and front
matter is checked as the real Hub does, by its rules for the fields that a model card of ours has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_" + "local" * 6
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "other", "unknown"}


class LocalHub(ThreadingHTTPServer):
    """What it holds: repository → commits, newest last, each path → bytes; and all that was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cuts = 0  # of the next files, how many are cut off halfway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def front_matter_errors(content: str) -> list[str]:
    """What the Hub would refuse in a card's front matter."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not match:
        return ["no front matter"]
    told = yaml.safe_load(match[1])
    texts = ("library_name", "pipeline_tag", "license", "base_model")
    errors = [f"{name} is not text" for name in texts if not isinstance(told.get(name, ""), str)]
    if errors:
        return errors
    if told.get("license", "unknown") not in LICENCES:
        errors.append(f"license {told['license']!r} is not one of the Hub's")
    if "base_model" in told and not re.fullmatch(r"[\w.-]+/[\w.-]+", told["base_model"]):
        errors.append("base_model is no id")
    if not all(isinstance(tag, str) for tag in told.get("tags", [])):
        errors.append("tags are not text")
    return errors


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bytes | dict[str, Any], code: int = 200, **headers: str) -> None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: int, kind: str, words: str) -> None:
        self._answer({"error": words}, code, X_Error_Code=kind, X_Error_Message=words)

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        self.server.asked.append(f"{self.command} {path}")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                writes = method in ("POST", "PUT") and path != "/api/validate-yaml" and not path.startswith("/objects/")
                if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._refuse(401, "", "Invalid username or password.")
                    return
                answer(self, body, **match.groupdict())
                return
        self._refuse(404, "EntryNotFound", f"nothing at {path}")

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - the server looks for these names

    def _create(self, body: bytes) -> None:
        told = json.loads(body)
        name = f"{told['organization']}/{told['name']}" if told.get("organization") else f"me/{told['name']}"
        if name in self.server.repositories:
            self._answer({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
            return
        self.server.repositories[name] = [(hashlib.sha1(name.encode()).hexdigest(), {})]
        self.server.private[name] = bool(told.get("private")) or told.get("visibility") == "private"
        self._answer({"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def _yaml(self, body: bytes) -> None:
        errors = front_matter_errors(json.loads(body)["content"])
        self._answer({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    def _preupload(self, body: bytes, repo: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._answer({"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/objects/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _object(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self._answer(b"")

    def _commit(self, body: bytes, repo: str) -> None:
        files = dict(self.server.repositories[repo][-1][1])
        for line in map(json.loads, body.splitlines()):
            told = line["value"]
            if line["key"] == "file":
                assert told["encoding"] == "base64"
                files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.server.objects[told["oid"]]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.server.repositories[repo].append((sha, files))
        self._answer({"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}"})

    def _at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.server.repositories.get(repo)
        if commits is None or (self.server.private[repo] and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._refuse(401, "RepoNotFound", "Repository not found")
            return None
        for sha, files in reversed(commits):
            if revision in ("main", sha):
                return sha, files
        self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        if found := self._at(repo, revision or "main"):
            sha, files = found
            siblings = [{"rfilename": name} for name in files]
            about = {"_id": "1", "id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "tags": []}
            self._answer({**about, "private": self.server.private[repo], "downloads": 0, "likes": 0})

    def _tree(self, body: bytes, repo: str, revision: str) -> None:
        if found := self._at(repo, revision):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in found[1].items()
            ]
            self._answer(json.dumps(rows).encode())

    def _resolve(self, body: bytes, repo: str, revision: str, file: str) -> None:
        if found := self._at(repo, revision):
            sha, files = found
            if file not in files:
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
            self._send(files[file], X_Repo_Commit=sha, ETag=etag, Content_Type="application/octet-stream")

    def _send(self, data: bytes, **headers: str) -> None:
        """Send a file, or from where the client asks; hang up halfway while the server is to cut."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        if self.command == "GET" and self.server.cuts and len(data) > 1000:
            self.server.cuts -= 1
            self.send_response(206 if asked else 200)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(data, 206 if asked else 200, **headers)


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._yaml),
    ("POST", rf"/api/models/{_REPO}/preupload/main", _Handler._preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler._object),
    ("POST", rf"/api/models/{_REPO}/commit/main", _Handler._commit),
    ("GET", rf"/api/models/{_REPO}", _Handler._info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>[\w.-]+)", _Handler._info),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[\w.-]+)", _Handler._tree),
    ("GET|HEAD", rf"/{_REPO}/resolve/(?P<revision>[\w.-]+)/(?P<file>.+)", _Handler._resolve),
]

"""A hub for uploads on this machine: the routes that huggingface_hub asks, and what it sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN, OWNER, COMMIT = "hf_a_token_that_may_write", "me", "c0ffee" * 6 + "beef"


class Hub(ThreadingHTTPServer):
    """Repositories and their files, in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.repos: dict[str, dict[str, Any]] = {}  # owner/name -> private, files
        self.stored: dict[str, bytes] = {}  # SHA-256 -> what was put there
        self.messages: list[str] = []  # of commits
        self.tokens: set[str | None] = set()
        self.broken: tuple[str, int, str] | None = None  # part of a path, status, what is said

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Routes(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._route("GET")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, verb: str) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if not path.startswith("/stored/"):
            self.server.tokens.add(token)
        broken = self.server.broken
        if broken is not None and broken[0] in path:
            self._answer({"error": broken[2]}, broken[1])
        elif not path.startswith("/stored/") and token != TOKEN:
            self._answer({"error": "Invalid username or password."}, 401)
        else:
            self._known(verb, path, body)

    def _known(self, verb: str, path: str, body: bytes) -> None:
        model = r"/api/models/([^/]+/[^/]+)"
        routes: dict[str, Any] = {
            "GET /api/whoami-v2": self._who,
            "POST /api/repos/create": self._create,
            "POST /api/validate-yaml": self._valid,
            rf"POST {model}/preupload/main": self._modes,
            r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._places,
            "PUT /stored/([0-9a-f]+)": self._store,
            rf"POST {model}/commit/main": self._commit,
            f"GET {model}": self._facts,
        }
        for form, answer in routes.items():
            if found := re.fullmatch(form, f"{verb} {path}"):
                answer(body, *found.groups())
                return
        self._answer({"error": f"no route {verb} {path}"}, 404)

    def _who(self, body: bytes) -> None:
        self._answer({"type": "user", "name": OWNER, "id": "1", "orgs": []})

    def _valid(self, body: bytes) -> None:
        self._answer({"errors": [], "warnings": []})

    def _facts(self, body: bytes, repo: str) -> None:
        if repo not in self.server.repos:
            self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
            return
        facts = {"id": repo, "private": self.server.repos[repo]["private"], "sha": COMMIT}
        self._answer(facts | {"siblings": [], "tags": []})

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if name in self.server.repos:
            said = {"error": "You already created this model repo"}
            self._answer(said | {"url": f"{self.server.url}/{name}"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.repos[name] = {"private": private, "files": {}}
        self._answer({"url": f"{self.server.url}/{name}"})

    def _modes(self, body: bytes, repo: str) -> None:
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = ["lfs" if x.endswith((".safetensors", ".gguf")) else "regular" for x in paths]
        found = [
            {"path": path, "uploadMode": mode, "shouldIgnore": False}
            for path, mode in zip(paths, modes, strict=True)
        ]
        self._answer({"files": found})

    def _places(self, body: bytes, repo: str) -> None:
        found = []
        for one in json.loads(body)["objects"]:
            href = f"{self.server.url}/stored/{one['oid']}"
            found.append({**one, "actions": {"upload": {"href": href, "header": {}}}})
        self._answer({"objects": found})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.stored[oid] = body
        self._answer({})

    def _commit(self, body: bytes, repo: str) -> None:
        files = self.server.repos[repo]["files"]
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.server.stored[value["oid"]]
        self._answer(
            {"commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("transfer-encoding") or ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, data: Any, status: int = 200, code: str | None = None) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        if code is not None:
            self.send_header("x-error-code", code)
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def running() -> Iterator[Hub]:
    """Give a hub that answers while this lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()

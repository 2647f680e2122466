"""A judge on loopback that replies what a test says."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluators.jsonl import judge_client


class Endpoint:
    """A judge on loopback. ``replies``: question, number of the call -> text, status or bytes."""

    def __init__(self, replies):
        self.replies = replies
        self.requests = []
        self.retry_after = ""
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                endpoint.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # who waited may be gone
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, handler):
        size = int(handler.headers["Content-Length"])
        body = json.loads(handler.rfile.read(size))
        with self._lock:
            self.requests.append((handler.path, dict(handler.headers), body))
            calls = len(self.requests)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        reply = self.replies(body["messages"][0]["content"], calls)
        with self._lock:
            self._now -= 1
        status = reply if isinstance(reply, int) else 200
        if isinstance(reply, str):
            reply = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        if status in (301, 302, 307):
            handler.send_response(status)
            handler.send_header("Location", f"{self.url}/elsewhere")
        else:
            handler.send_response(status)
        if self.retry_after:
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.write(b"told off" if isinstance(reply, int) else reply)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint(monkeypatch):
    """Start judges and stop them; no waiting between tries."""
    monkeypatch.setattr(judge_client, "FIRST_WAIT", 0.0)
    started = []

    def start(replies):
        started.append(Endpoint(replies))
        return started[-1]

    yield start
    for one in started:
        one.close()

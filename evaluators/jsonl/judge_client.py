"""Questions to an OpenAI-compatible endpoint: some at a time, again after a failure, never a guess.

The standard library is enough. Redirects are not followed: they would carry the key elsewhere.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from merge_core.errors import EvaluationError, ParameterError

FIRST_WAIT = 1.0  # seconds before the second try; doubled before each further one
LONGEST_WAIT = 30.0
_KEY_NAME = re.compile(r"[A-Z0-9_]*API_KEY")
_AGAIN = (408, 409, 425, 429)  # and every 5xx: the same question may be answered later


class Reply(NamedTuple):
    """What came back for one question: one of the two is empty."""

    text: str
    failure: str


class _Failed(Exception):
    """One try failed; ``again`` says whether another may help."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class JudgeClient:
    """Where and how to ask.

    Args:
        base_url: Such as ``http://localhost:8000/v1``; ``/chat/completions`` is added.
        model: Its name there.
        key: Sent as a bearer token, unless empty.
        timeout: Seconds without a byte after which a try has failed.
        retries: Further tries after the first.
        concurrency: Most questions at a time.
        max_tokens: Most tokens of a reply.
    """

    base_url: str
    model: str
    key: str
    timeout: float
    retries: int
    concurrency: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ParameterError(
                f"base_url must start with http:// or https://, got {self.base_url!r}"
            )

    def ask(self, questions: Sequence[str]) -> list[Reply]:
        """Return one reply per question, in their order; it never raises for what a judge does."""
        if not questions:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(questions))) as threads:
            return list(threads.map(self._ask, questions))

    def _ask(self, question: str) -> Reply:
        wait = FIRST_WAIT
        for left in range(self.retries, -1, -1):
            try:
                return Reply(self._once(question), "")
            except _Failed as failed:
                if not left or not failed.again:
                    tries = self.retries - left + 1
                    return Reply("", f"the judge failed ({tries} tries): {failed}")
            time.sleep(min(wait, LONGEST_WAIT))
            wait *= 2
        raise AssertionError("unreachable: the last try returns")

    def _once(self, question: str) -> str:
        try:
            with _opener().open(self._request(question), timeout=self.timeout) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            told = error.read(200).decode("utf-8", "replace").strip()
            again = error.code in _AGAIN or error.code >= 500
            raise _Failed(f"HTTP {error.code}: {told or error.reason}", again) from error
        except (OSError, http.client.HTTPException) as error:  # no answer, half of one, a timeout
            raise _Failed(f"{type(error).__name__}: {error}", True) from error
        return _content(body)

    def _request(self, question: str) -> urllib.request.Request:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return urllib.request.Request(
            f"{self.base_url.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode(),
            headers=headers,
            method="POST",
        )


def key_from(variable: str | None) -> str:
    """Return the key that an environment variable holds; without a variable, none.

    Raises:
        ParameterError: The variable's name does not end in ``API_KEY``: a study file, which may
            come from a stranger, must not send other secrets away.
        EvaluationError: The variable is not set.
    """
    if variable is None:
        return ""
    if not _KEY_NAME.fullmatch(variable):
        raise ParameterError(f"api_key_env must be a name that ends in API_KEY, got {variable!r}")
    if not os.environ.get(variable):
        raise EvaluationError(f"the environment variable {variable} (api_key_env) is not set")
    return os.environ[variable]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None  # urllib then raises the 3xx as an HTTPError


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        told = body[:80].decode("utf-8", "replace")
        raise _Failed(f"no chat completion, but {told!r}", True) from error
    if not isinstance(content, str):
        raise _Failed(f"a chat completion without text, but {content!r}", True)
    return content

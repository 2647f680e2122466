"""Questions to an OpenAI-compatible endpoint: some at a time, again after a failure, never a guess.

Redirects are not followed: they would carry the key elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader

from merge_core.errors import EvaluationError, ParameterError

FIRST_WAIT = 1.0  # seconds; doubled for each further try, and up to as much again by chance
LONGEST_WAIT = 30.0
_KEY_NAME = re.compile(r"[A-Z0-9_]*API_KEY")
_AGAIN = (408, 409, 425, 429, *range(500, 600))  # the same question may be answered later

_REFUSED = (400, 413, 422)  # such as a question that is too long


class Reply(NamedTuple):
    """What came back for one question: one of the two is empty."""

    text: str
    failure: str


class _Failed(Exception):
    """One try failed.

    Args:
        reason: Why.
        again: Whether another try may help.
        response: What was answered, for its Retry-After.
        refused: Whether it is only about this question, so that the next one may do.
    """

    def __init__(
        self,
        reason: str,
        again: bool = True,
        response: BaseHTTPResponse | None = None,
        refused: bool = False,
    ) -> None:
        super().__init__(reason)
        self.again, self.response, self.refused = again, response, refused


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
        """Return one reply per question, in their order.

        Raises:
            EvaluationError: The judge is down, or does not let us in.
        """
        if not questions:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(questions))) as threads:
            return list(threads.map(self._ask, questions))

    def _ask(self, question: str) -> Reply:
        retry = Retry(
            self.retries,
            backoff_factor=FIRST_WAIT,
            backoff_jitter=FIRST_WAIT,
            backoff_max=LONGEST_WAIT,
        )
        while True:
            try:
                return Reply(self._once(question), "")
            except _Failed as failed:
                if not failed.again or not retry.total:
                    tries = len(retry.history) + 1
                    reason = f"the judge failed ({tries} tries): {failed}"
                    if not failed.refused:
                        raise EvaluationError(reason) from failed
                    return Reply("", reason)
                retry = retry.increment()
                _wait(retry, failed.response)

    def _once(self, question: str) -> str:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        try:
            response = requests.post(
                url, json=body, auth=self._sign, timeout=self.timeout, allow_redirects=False
            )
        except requests.RequestException as error:  # no answer, half of one, a timeout
            raise _Failed(f"{type(error).__name__}: {error}") from error
        if not 200 <= response.status_code < 300:
            told = response.content[:200].decode("utf-8", "replace").strip()
            reason = f"HTTP {response.status_code}: {told or response.reason}"
            code = response.status_code
            raise _Failed(reason, code in _AGAIN, response.raw, code in _REFUSED)
        return _content(response)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key; also without one no password of a .netrc file is sent."""
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def _wait(retry: Retry, response: BaseHTTPResponse | None) -> None:
    """Sleep as long as the answer's Retry-After says, or longer after each failure."""
    try:
        retry.sleep(response)
    except InvalidHeader:
        retry.sleep()


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


def _content(response: requests.Response) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        told = response.content[:80].decode("utf-8", "replace")
        raise _Failed(f"no chat completion, but {told!r}") from error
    if not isinstance(content, str):
        raise _Failed(f"a chat completion without text, but {content!r}", refused=True)
    return content

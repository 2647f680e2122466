"""Questions to an OpenAI-compatible endpoint: some at a time, again after a failure, never a guess.

Redirects are not followed: they would carry the key elsewhere. No text that comes back leaves here
with the key in it, and none is read for longer or further than it may be.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import requests
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader

from evaluators.jsonl.judge_key import check_address, is_local, redacted
from merge_core.errors import EvaluationError

FIRST_WAIT = 1.0  # seconds; doubled for each further try, and up to as much again by chance
LONGEST_WAIT = 30.0
LONGEST_ASKED_FOR = 600  # of a Retry-After
MOST_BYTES = 4 * 2**20  # of a reply
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
        timeout: Seconds after which a try has failed that is not answered in full.
        retries: Further tries after the first.
        concurrency: Most questions at a time.
        max_tokens: Most tokens of a reply.
    """

    base_url: str
    model: str
    key: str = field(repr=False)
    timeout: float
    retries: int
    concurrency: int
    max_tokens: int

    def __post_init__(self) -> None:
        check_address(self.base_url)

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
                        raise EvaluationError(reason) from None
                    return Reply("", reason)
                retry = retry.increment()
                _wait(retry, failed.response)

    def _once(self, question: str) -> str:
        """Ask once, in a thread that is left behind where it takes too long."""
        found: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._try, args=(question, found), daemon=True).start()
        try:
            outcome = found.get(timeout=self.timeout)
        except queue.Empty:
            raise _Failed(f"timed out after {self.timeout:g} s") from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _try(self, question: str, found: queue.SimpleQueue[str | Exception]) -> None:
        end = time.monotonic() + self.timeout
        try:
            found.put(self._content(*self._answer(question, end)))
        except requests.RequestException as error:  # no answer, half of one
            told = redacted(f"{type(error).__name__}: {error}", self.key)
            found.put(_Failed(told))
        except Exception as error:  # of the other thread, which raises it
            found.put(error)

    def _answer(self, question: str, end: float) -> tuple[requests.Response, str]:
        """Return what was answered until ``end``, and its text without the key."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        with requests.post(
            f"{self.base_url.rstrip('/')}/chat/completions",
            json=body,
            headers={"Accept-Encoding": "identity"},
            auth=self._sign,
            timeout=self.timeout,
            allow_redirects=False,
            stream=True,
            # a proxy would read what does not leave this machine
            proxies={"http": "", "https": ""} if is_local(self.base_url) else None,
        ) as response:
            read = bytearray()
            for part in response.iter_content(2**16):
                read += part
                if len(read) > MOST_BYTES:
                    raise _Failed(f"a reply of more than {MOST_BYTES} bytes", refused=True)
                if time.monotonic() > end:
                    raise _Failed(f"timed out after {self.timeout:g} s")
        return response, redacted(read.decode("utf-8", "replace"), self.key)

    def _content(self, response: requests.Response, text: str) -> str:
        code = response.status_code
        if not 200 <= code < 300:
            reason = text[:200].strip() or redacted(str(response.reason), self.key)[:200]
            raise _Failed(f"HTTP {code}: {reason}", code in _AGAIN, response.raw, code in _REFUSED)
        try:
            content = json.loads(text)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _Failed(f"no chat completion, but {text[:80]!r}") from None
        if not isinstance(content, str):
            told = f"{content!r}"[:80]
            raise _Failed(f"a chat completion without text, but {told}", refused=True)
        return redacted(content, self.key)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key; also without one no password of a .netrc file is sent."""
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def _wait(retry: Retry, response: BaseHTTPResponse | None) -> None:
    """Sleep as long as the answer's Retry-After says, or longer after each failure."""
    try:
        asked_for = retry.get_retry_after(response) if response is not None else None
    except (InvalidHeader, ValueError, OverflowError):  # also of a number or a date beyond bounds
        asked_for = None
    if asked_for:
        time.sleep(min(asked_for, LONGEST_ASKED_FOR))
    else:
        retry.sleep()

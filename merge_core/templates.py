"""Jinja templates of others, filled within bounds of time, memory and length.

A sandbox keeps a template from running code, not from looping for ever or making endless text. So
they are filled by a process of their own, started at the first use and kept.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from merge_core import template_process
from merge_core.errors import TemplateError
from merge_core.template_process import SECONDS, Request

BYTES = 2**20  # of a template; long ones of today have 2**15
# Names of what the process gets of the environment: no keys, no passwords.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV", "TMPDIR")


def fill(template: str, variables: Mapping[str, Any]) -> str:
    """Fill a Jinja template; undefined names are errors, and its last line end stays.

    It has the filter ``regex_replace(pattern, new, count=0)``. Variables are copied, so what a
    template calls changes nothing here.

    Raises:
        TemplateError: It cannot be compiled or filled, or takes more than 1 s of processor time,
            256 MiB or 16 Mi characters.
    """
    return _PROCESS.ask(Request("text", template, dict(variables)))


def fill_chat(template: str, turns: Sequence[Mapping[str, Any]], **settings: Any) -> str:
    """Fill a chat template as transformers does.

    Args:
        template: Its text.
        turns: Of one conversation, each with ``role`` and ``content``.
        settings: Arguments of transformers' ``render_jinja_template`` and variables of the
            template, such as ``add_generation_prompt``, ``bos_token``.

    Raises:
        TemplateError: As for ``fill``, or what the settings ask for cannot be.
    """
    conversation = [dict(turn) for turn in turns]
    return _PROCESS.ask(Request("chat", template, {**settings, "conversations": [conversation]}))


def check(template: str, kind: str = "text") -> None:
    """Compile a template without filling it.

    ``kind`` is ``text`` for ``fill``, or ``chat`` for ``fill_chat``.

    Raises:
        TemplateError: It is no template, or beyond the bounds.
    """
    _PROCESS.ask(Request(kind, template, None))


class _Process:
    """The process that fills templates; one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: a fork may not use the pipes

    def ask(self, request: Request) -> str:
        if len(request.template) > BYTES:
            raise TemplateError(f"the template has more than {BYTES} characters")
        with self._lock:
            try:
                line = self._exchange(pickle.dumps(tuple(request)))
            except BaseException:  # also Ctrl-C: an answer may be on its way that nobody reads
                self.stop()
                raise
            answer: dict[str, Any] = json.loads(line) if line else {"error": self._why_ended()}
        if "error" in answer:
            raise TemplateError(answer["error"], answer.get("line"), answer.get("refused", False))
        return str(answer["text"])

    def stop(self) -> None:
        if self._running is not None and self._owner == os.getpid():
            self._running.kill()
            self._running.communicate()
        self._running = None

    def _exchange(self, request: bytes) -> bytes:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return process.stdout.readline()

    def _why_ended(self) -> str:
        assert self._running is not None
        code = self._running.wait()
        self.stop()
        if code == -template_process.SIGNAL:
            return f"it takes more than {SECONDS:g} s of processor time"
        return f"the process that fills it ended (status {code})"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._running is None or self._owner != os.getpid():
            kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith("PYTHON")}
            self._owner = os.getpid()
            self._running = subprocess.Popen(
                [sys.executable, str(template_process.__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                start_new_session=True,  # Ctrl-C is not for it
            )
        return self._running


_PROCESS = _Process()
atexit.register(_PROCESS.stop)

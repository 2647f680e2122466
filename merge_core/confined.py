"""Work on patterns of others in a process of its own, within bounds of time and memory.

Templates and regular expressions may go on for ever inside one operation, and Python cannot end its
own threads. The process is started at the first use and kept; see ``confined_process``.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("confined_process.py")  # not imported: it needs jinja2
SECONDS = 1.0  # of processor time for one request; real ones take a thousandth
# Names of what the process gets of the environment: no keys, no passwords.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV", "TMPDIR")


def ask(kind: str, *arguments: Any) -> dict[str, Any]:
    """Have work done; ``confined_process`` says what kinds there are.

    Returns:
        ``result``, or ``error``: why there is none, with ``line`` and ``refused`` where the work
        itself says so.
    """
    return _PROCESS.ask(kind, *arguments)


class _Process:
    """The process; it does one thing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: a fork may not use the pipes

    def ask(self, kind: str, *arguments: Any) -> dict[str, Any]:
        with self._lock:
            request = pickle.dumps((kind, arguments))
            try:
                line = self._exchange(request)
                if not line and self._was_killed():
                    line = self._exchange(request)
            except BaseException:  # also Ctrl-C: an answer may be on its way that nobody reads
                self.stop()
                raise
            answer: dict[str, Any] = json.loads(line) if line else {"error": self._why_ended()}
        return answer

    def _was_killed(self) -> bool:
        """Return whether somebody else killed it, as the kernel does for want of memory."""
        assert self._running is not None
        if self._running.wait() != -signal.SIGKILL:
            return False
        self.stop()
        return True

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
        line = process.stdout.readline()
        return line if line.endswith(b"\n") else b""  # else it ended while it answered

    def _why_ended(self) -> str:
        assert self._running is not None
        code = self._running.wait()
        self.stop()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} s of processor time"
        return f"the process for it ended (status {code})"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._running is None or self._owner != os.getpid():
            kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith("PYTHON")}
            self._owner = os.getpid()
            self._running = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(os.sep),  # the folder that we are in may go while it runs
                env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                start_new_session=True,  # Ctrl-C is not for it
            )
        return self._running


_PROCESS = _Process()
atexit.register(_PROCESS.stop)

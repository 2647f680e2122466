"""Workers as processes of this machine, each with its own parents, live model and device.

A process is started when the first call comes for it (``spawn``: CUDA and threads survive no fork),
serves one call at a time over a pipe, and ends with the coordinator, also where that was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from search.workers.answers import Answer
from search.workers.opening import Opening
from search.workers.pool import Died, Pool

_SPAWN = multiprocessing.get_context("spawn")
END = signal.SIGUSR1  # from the coordinator alone
PATIENCE = 5.0  # seconds that a process has to end what it does, before it is killed
# Terminals, schedulers and `timeout` send these to all processes: only the coordinator decides.
TO_ALL = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Processes(Pool):
    """``count`` processes of this machine; see ``protocol.Workers``.

    Args:
        count: How many, at least one.
        opening: Takes a worker's number, from 0, and says what it opens; asked when it starts.
    """

    def __init__(self, count: int, opening: Callable[[int], Opening]) -> None:
        super().__init__(count, lambda number: _Process(opening(number)))


class _Process:
    """One process, and the coordinator's end of its pipe; see ``pool.Running``."""

    def __init__(self, opening: Opening) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TO_ALL)  # so the process hears none, at first
        self._pipe, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(other, opening), daemon=True)
        self._process.start()
        other.close()  # or its end would not be seen
        self._open = False

    def wait_until_open(self) -> None:
        """See ``pool.Running``."""
        if not self._open:
            self._received(opening=True)
            self._open = True

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """See ``pool.Running``."""
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._died() from error
        return self._received()

    def end(self) -> None:
        """End the process, whatever it does; whoever waits for its answer sees that."""
        if self._process.is_alive() and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, END)
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _received(self, *, opening: bool = False) -> Any:
        try:
            answer: Answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died(opening=opening) from error
        return answer.given()

    def _died(self, *, opening: bool = False) -> Died:
        self._process.join(PATIENCE)
        self.end()
        return Died(_how(self._process.exitcode), opening=opening)


def _how(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is None or code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by {name}{', as where memory runs out' if name == 'SIGKILL' else ''}"


def _work(pipe: Connection, opening: Opening) -> None:
    """Open a study and serve calls, in a process of its own, until the coordinator ends."""
    for ours in TO_ALL:
        signal.signal(ours, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_ALL)
    signal.signal(END, lambda *_: sys.exit(1))  # what libraries hold is given back
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # a vLLM of several GPUs has processes of its own, which daemons may not have
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    opened = Answer.of(opening.open)
    with suppress(EOFError, OSError):  # the coordinator has ended
        pipe.send(replace(opened, value=None))  # the worker stays here
        while opened.error is None:
            method, arguments = pipe.recv()
            pipe.send(Answer.of(partial(_asked, opened.value, method, arguments)))


def _asked(worker: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(worker, method)(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

"""Workers as processes of this machine, each with its own parents, live model and device.

A process is started when the first call comes for it (``spawn``: CUDA and threads survive no fork),
serves one call at a time over a pipe, and ends with the coordinator, also where that was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

from merge_core.errors import MergeError
from search.workers.opening import Opening
from search.workers.protocol import MOST_DEATHS, WorkerDiedError

_SPAWN = multiprocessing.get_context("spawn")
END = signal.SIGUSR1  # from the coordinator alone
AT_REST = 0.5  # seconds that a process takes to end which has nothing to do
PATIENCE = 5.0  # that it then has to end what it does, before it is killed


class _Call(NamedTuple):
    method: str
    arguments: tuple[Any, ...]
    answer: Future[Any]


class _RemoteTraceback(Exception):
    """Where in another process an error was raised."""


class Processes:
    """``count`` processes of this machine; see ``protocol.Workers``.

    Args:
        count: How many, at least one.
        opening: Takes a worker's number, from 0, and says what it opens; asked when it starts.
    """

    def __init__(self, count: int, opening: Callable[[int], Opening]) -> None:
        self.count, self.busy = count, 0.0
        self._opening, self._lock = opening, threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._processes: list[_Process | None] = [None] * count
        self._closed = False
        for number in range(count):
            threading.Thread(target=self._serve, args=(number,), daemon=True).start()

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Queue a call; see ``protocol.Workers``."""
        answer: Future[Any] = Future()
        self._calls.put(_Call(method, arguments, answer))
        return answer

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            running = [process for process in self._processes if process is not None]
        ends = [threading.Thread(target=process.end) for process in running]
        for end in ends:
            end.start()
        for end in ends:
            end.join()
        for _ in range(self.count):
            self._calls.put(None)

    def _serve(self, number: int) -> None:
        """Give one process its calls, one after the other, until all is closed."""
        while (call := self._calls.get()) is not None and not self._closed:
            if not call.answer.set_running_or_notify_cancel():
                continue
            try:
                answer = self._answered(number, call)
            except BaseException as error:
                if self._closed:
                    return
                call.answer.set_exception(error)
            else:
                call.answer.set_result(answer)

    def _answered(self, number: int, call: _Call) -> Any:
        died: list[_Died] = []
        while len(died) < MOST_DEATHS and not self._closed:
            process = self._running(number)
            try:
                process.wait_until_open()
                begun = time.perf_counter()
                try:
                    return process.ask(call.method, call.arguments)
                finally:
                    self._count(time.perf_counter() - begun)
            except _Died as death:
                died.append(death)
                self._processes[number] = None
        raise WorkerDiedError(
            f"{len(died)} worker processes ended one after the other {died[-1].when}: {died[-1]}"
        )

    def _running(self, number: int) -> _Process:
        process = self._processes[number]
        if process is None:
            process = _Process(self._opening(number))
            with self._lock:
                self._processes[number] = process
            if self._closed:
                process.end()
        return process

    def _count(self, seconds: float) -> None:
        with self._lock:
            self.busy += seconds


class _Died(Exception):
    """A process ended; ``when`` it did in words."""

    def __init__(self, code: int | None, when: str) -> None:
        killed = code is not None and code < 0
        name = signal.Signals(-code).name if killed and code is not None else ""
        hint = ", as where memory runs out" if name == "SIGKILL" else ""
        super().__init__(f"by {name}{hint}" if killed else f"with exit code {code}")
        self.when = when


class _Process:
    """One process, and the coordinator's end of its pipe."""

    def __init__(self, opening: Opening) -> None:
        self._pipe, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(other, opening), daemon=True)
        self._process.start()
        other.close()  # or its end would not be seen
        self._open = False

    def wait_until_open(self) -> None:
        """Wait until the study is open there.

        Raises:
            MergeError: It cannot be opened.
            _Died: The process ended.
        """
        if not self._open:
            self._received("while they opened the study")
            self._open = True

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a method of the worker there returns, or raise what it raises.

        Raises:
            _Died: The process ended.
        """
        when = "at the same job"
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._died(when) from error
        return self._received(when)

    def end(self) -> None:
        """End the process, whatever it does; one that waits for a call ends by itself."""
        self._pipe.close()
        self._process.join(AT_REST)
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, END)
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _received(self, when: str) -> Any:
        try:
            raised, value, where = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died(when) from error
        if raised:
            raise value from _RemoteTraceback(where)
        return value

    def _died(self, when: str) -> _Died:
        self._process.join(PATIENCE)
        self.end()
        return _Died(self._process.exitcode, when)


def _work(pipe: Connection, opening: Opening) -> None:
    """Open a study and serve calls, in a process of its own, until the coordinator ends."""
    for ours in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # said to a whole group:
        signal.signal(ours, signal.SIG_IGN)  # the coordinator decides what becomes of that
    signal.signal(END, lambda *_: sys.exit(1))  # what libraries hold is given back
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = _answer(pipe, opening.open, keep=True)
    while worker is not None:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        _answer(pipe, lambda m=method, a=arguments: getattr(worker, m)(*a))  # type: ignore[misc]


def _answer(pipe: Connection, work: Callable[[], Any], *, keep: bool = False) -> Any:
    """Send what ``work`` returns or raises; what is to be kept here is not sent."""
    try:
        found = work()
    except Exception as error:
        pipe.send((True, _portable(error), traceback.format_exc()))
        return None
    pipe.send((False, None if keep else found, ""))
    return found


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read, with the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = "" if isinstance(error, MergeError) else f"{type(error).__name__}: "
        return MergeError(f"{kind}{error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

"""k workers that are served from one queue, each by a thread of its own; wherever they are."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from merge_core.errors import MergeError
from search.workers.protocol import MOST_DEATHS, WorkerDiedError


class Died(Exception):
    """A worker is gone; its text says how, ``opening`` whether that was before its first call."""

    def __init__(self, how: str, *, opening: bool = False) -> None:
        super().__init__(how)
        self.opening = opening
        self.when = "while they opened the study" if opening else "at the same job"


class NoRoom(Exception):
    """A worker waits for a place to be; its text says what it needs."""


class Running(Protocol):
    """One worker, or the place of one that is being started."""

    def wait_until_open(self) -> None:
        """Wait until the study is open there.

        Raises:
            MergeError: It cannot be opened.
            Died: The worker ended.
            NoRoom: There is no place for it now; it may be waited for again.
        """
        ...

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a method of the worker there returns, or raise what it raises.

        Raises:
            Died: The worker ended.
        """
        ...

    def end(self) -> None:
        """End the worker, whatever it does."""
        ...


@dataclass
class _Call:
    method: str
    arguments: tuple[Any, ...]
    answer: Future[Any] = field(default_factory=Future)
    deaths: list[Died] = field(default_factory=list)  # of workers at it

    def goes_on(self) -> bool:
        """Return whether it is still wanted; from now on it cannot be cancelled."""
        return self.answer.running() or self.answer.set_running_or_notify_cancel()


class Pool:
    """See ``protocol.Workers``. All workers are started when the first call comes.

    Args:
        count: How many, at least one.
        start: Takes a worker's number, from 0, and starts it.
    """

    def __init__(self, count: int, start: Callable[[int], Running]) -> None:
        self.count, self.busy = count, 0.0
        self._start, self._lock = start, threading.Lock()
        self._calls: deque[_Call] = deque()
        self._news = threading.Condition(self._lock)  # a call, or the end
        self._workers: list[Running | None] = [None] * count
        self._outside: set[int] = set()  # numbers of those that have no place
        self._begun = self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Queue a call; see ``protocol.Workers``."""
        call = _Call(method, arguments)
        with self._news:
            self._calls.append(call)
            self._news.notify()
        return call.answer

    def close(self) -> None:
        """End all workers."""
        with self._news:
            self._closed = True
            running = [worker for worker in self._workers if worker is not None]
            self._news.notify_all()
        ends = [threading.Thread(target=worker.end) for worker in running]
        for end in ends:
            end.start()
        for end in ends:
            end.join()

    def join(self, seconds: float) -> None:
        """Wait, after ``close``, until no thread is at work; at most so long."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _serve(self, number: int) -> None:
        """Give one worker its calls, one after the other, until all is closed."""
        self._start_with_the_others(number)
        while (call := self._next()) is not None:
            if not call.goes_on():
                continue
            try:
                answer = self._asked(number, call)
            except (Died, NoRoom) as error:
                self._put_back(call, error)
                self._reopen(number, error)
            except BaseException as error:
                if self._closed:
                    return
                call.answer.set_exception(error)
            else:
                call.answer.set_result(answer)

    def _start_with_the_others(self, number: int) -> None:
        with self._news:
            while not self._calls and not self._begun and not self._closed:
                self._news.wait()
            self._begun = True
            self._news.notify_all()
        if not self._closed:
            with suppress(MergeError, Died, NoRoom):  # the first call meets it
                self._open(number)

    def _next(self) -> _Call | None:
        with self._news:
            while not self._calls and not self._closed:
                self._news.wait()
            return None if self._closed else self._calls.popleft()

    def _asked(self, number: int, call: _Call) -> Any:
        worker = self._open(number)
        begun = time.perf_counter()
        try:
            return worker.ask(call.method, call.arguments)
        except Died:
            self._workers[number] = None
            raise
        finally:
            with self._lock:
                self.busy += time.perf_counter() - begun

    def _open(self, number: int) -> Running:
        """Return a worker that has opened the study; one that cannot is ended."""
        worker = self._workers[number]
        if worker is None:
            worker = self._start(number)
            with self._lock:
                self._workers[number] = worker
            if self._closed:
                worker.end()
        try:
            worker.wait_until_open()
        except (MergeError, Died):
            self._workers[number] = None
            worker.end()
            raise
        return worker

    def _put_back(self, call: _Call, error: Died | NoRoom) -> None:
        """Let the next free worker do a call, unless it is the call that kills them."""
        if isinstance(error, Died):
            call.deaths.append(error)
        if len(call.deaths) == MOST_DEATHS:
            call.answer.set_exception(_killing(call.deaths))
            return
        with self._news:
            self._calls.appendleft(call)
            self._news.notify()

    def _reopen(self, number: int, error: Died | NoRoom) -> None:
        """Have a worker again before it takes a call: until then the others do all."""
        while not self._closed:
            if isinstance(error, NoRoom):
                self._fail_if_all_wait(number, error)
            try:
                self._open(number)
            except NoRoom as again:
                error = again
                continue
            except (MergeError, Died):  # the next call meets it
                pass
            break
        with self._lock:
            self._outside.discard(number)

    def _fail_if_all_wait(self, number: int, error: NoRoom) -> None:
        """Fail all calls where no worker has a place: the run ends, and no candidate is blamed."""
        with self._lock:
            self._outside.add(number)
            lost = [*self._calls] if len(self._outside) == self.count else []
            if lost:
                self._calls.clear()
        for call in lost:
            if call.goes_on():
                call.answer.set_exception(MergeError(f"there is no place for a worker: {error}"))


def _killing(deaths: list[Died]) -> MergeError:
    """Return what is said of a call at which workers die; while they open, none is to blame."""
    last = deaths[-1]
    text = f"{len(deaths)} workers ended one after the other {last.when}: {last}"
    return MergeError(text) if last.opening else WorkerDiedError(text)

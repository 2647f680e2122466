"""How a run is asked to end: Ctrl-C, SIGTERM, a terminal that is closed."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from contextlib import suppress
from types import FrameType

from search.views.terminal import ERR

ECHO = 1.0  # seconds in which SIGTERM is heard once: `timeout` sends it to a process and its group
STANDARD = (1, 2)  # file descriptors: what a program prints to


class Stopper:
    """The first Ctrl-C or SIGTERM ends after the running trial; the second ends at once.

    A terminal that is closed (SIGHUP) ends after the running trial, however often it is said: the
    kernel and the shell both say it, and a session that ends says SIGTERM beside it. A run that was
    started with ``nohup`` does not hear of it and goes on.
    """

    def __init__(self) -> None:
        self._asked = self._hung_up = False
        self._heard = -math.inf  # when SIGTERM was, last
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._terminate)
        _on_hangup(self._hang_up)

    def __call__(self) -> bool:
        """Return whether the user wants to stop."""
        if self._hung_up:
            _let_go_of_the_gone()  # the reader of a pipe may have gone after us
        return self._asked

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._ask("stopping after this trial; Ctrl-C again stops at once")

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        now, before = time.monotonic(), self._heard
        self._heard = now
        if now - before > ECHO:
            self._ask("told to end: stopping after this trial; SIGTERM again stops at once")

    def _ask(self, said: str) -> None:
        if self._asked and not self._hung_up:
            raise KeyboardInterrupt
        self._asked, self._hung_up = True, False
        _say(said)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        _let_go_of_the_gone()
        if not self._asked:
            self._asked = self._hung_up = True
            _say("the terminal is closed: stopping after this trial; with nohup a run goes on")


def end_in_order() -> None:
    """Let SIGTERM and a closed terminal end this process as Ctrl-C does: nothing half is left."""
    signal.signal(signal.SIGTERM, _end)
    _on_hangup(_end)


def _end(number: int, frame: FrameType | None) -> None:
    _let_go_of_the_gone()
    raise KeyboardInterrupt


def _on_hangup(handler: signal._HANDLER) -> None:
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, handler)


def _let_go_of_the_gone() -> None:
    """Print nowhere instead of to a terminal, or a pipe's reader, that is gone: that would fail."""
    for handle in STANDARD:
        poll = select.poll()
        poll.register(handle, 0)  # errors alone
        if poll.poll(0):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, handle)
            os.close(nowhere)


def _say(text: str) -> None:
    with suppress(RuntimeError, OSError):  # amidst another line, or nobody is there: heeded anyway
        ERR.print(text, soft_wrap=True)

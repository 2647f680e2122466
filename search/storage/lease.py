"""Who writes a study: one process at a time, on whichever machine, by a lease in its attributes."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from merge_core.errors import MergeError, StorageError
from merge_core.processes import is_running
from search.storage.stored import Stored

WRITER = "writer"  # the study attribute: host, pid, token, time; null when nobody writes
BEAT = 10.0  # seconds between two renewals
STALE = 120.0  # seconds after the last one; clocks of machines differ, and a storage may be slow
_HELD: set[str] = set()  # tokens of this process


class Lease:
    """The right to write a study, renewed by a thread as long as this context lasts.

    A lease that was not given back is taken over at once where its process is known to be gone
    (same host), and else when it was not renewed for ``STALE`` seconds.

    Args:
        stored: The study in its storage.
        what: Name it in messages.
    """

    def __init__(self, stored: Stored, what: str) -> None:
        self._stored, self._what = stored, what
        self._token, self._ended = uuid4().hex, threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            MergeError: Another process has it.
        """
        other = self._holder()
        age = time.time() - other["time"] if other else STALE
        if other and age < STALE and not _is_gone(other):
            raise MergeError(
                f"{self._what} is being run by process {other['pid']} on {other['host']}, heard of "
                f"{max(age, 0):.0f} s ago; two runs would double its trials. Stop that one, or "
                f"wait {STALE:.0f} s if it is dead"
            )
        _HELD.add(self._token)
        self._write()
        self.check()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Give the lease back, unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        _HELD.discard(self._token)
        with suppress(StorageError):  # one left behind is taken over: its process is gone
            if self._is_ours():
                self._stored.set(WRITER, None)

    def check(self) -> None:
        """Refuse to write with a lease that was taken over, such as after a long sleep.

        Raises:
            MergeError: Another process has it.
        """
        if not self._is_ours():
            other = self._holder() or {"pid": "?", "host": "another host"}
            raise MergeError(
                f"{self._what} was taken over by process {other['pid']} on {other['host']}, since "
                f"this one was not heard of for {STALE:.0f} s; this run ends"
            )

    def _holder(self) -> dict[str, Any] | None:
        """Return the lease that is stored; what is none, is nobody's."""
        found = self._stored.attributes().get(WRITER)
        kinds = {"host": str, "pid": int, "token": str, "time": float}
        if not isinstance(found, dict):
            return None
        whole = all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        return found if whole else None

    def _is_ours(self) -> bool:
        found = self._holder()
        return found is not None and found["token"] == self._token

    def _write(self) -> None:
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        self._stored.set(WRITER, {**mine, "time": round(time.time(), 1)})

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                if not self._is_ours():
                    return  # ``check`` tells
                self._write()
            except StorageError:
                continue  # out of reach for now: the run's own next write tells, if it still is


def _is_gone(other: dict[str, Any]) -> bool:
    """Return whether a lease's process is known to have ended."""
    if other["host"] != socket.gethostname():
        return False
    if other["pid"] == os.getpid():  # in a container every run may have the same number
        return other["token"] not in _HELD
    return not is_running(other["pid"])

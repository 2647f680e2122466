"""Who writes a study: one process at a time, on whichever machine, by a lease in its attributes.

The lease is one of Optuna's system attributes of the study, of which there are few: to look after
it before each write costs one short read, also through Optuna's gRPC proxy.
"""

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

WRITER = "mergetune:writer"  # the attribute: host, pid, token, time; null when nobody writes
BEAT = 10.0  # seconds between two renewals
STALE = 120.0  # seconds after the last one; clocks of machines differ, and a storage may be slow
LOOK = 3.5  # beats for which a lease is watched whose time says nothing, before it is taken over
_HELD: set[str] = set()  # tokens of this process


class Lease:
    """The right to write a study, renewed by a thread as long as this context lasts.

    A lease that was not given back is taken over at once where its process is known to be gone
    (same host). Else one whose time is that of the last ``STALE`` seconds, give or take a clock, is
    held; any other is watched for ``LOOK`` beats by this process's own clock: if it is renewed
    meanwhile, its machine's clock (or this one's) is wrong and it is held, else it is taken over.

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
        if other and not _is_gone(other) and self._is_alive(other):
            raise MergeError(
                f"{self._what} is being run by process {other['pid']} on {other['host']}, "
                f"{self._heard(other)}; two runs would double its trials. Stop that one, or wait "
                f"{STALE:.0f} s if it is dead"
            )
        _HELD.add(self._token)
        self._write()
        self.check()
        self._thread.start()
        return self

    def _is_alive(self, other: dict[str, Any]) -> bool:
        """Return whether the lease is one of a process that runs, or may run."""
        if abs(time.time() - other["time"]) < STALE:
            return True
        self._stored.guard.told(
            f"process {other['pid']} on {other['host']} did not say that it ended, "
            f"{self._heard(other)}; watching for {LOOK * BEAT:.0f} s whether it still runs"
        )
        until = time.monotonic() + LOOK * BEAT
        while time.monotonic() < until:
            time.sleep(min(1.0, BEAT / 4))
            now = self._holder()
            if now != other:
                return now is not None  # null: it has ended this moment
        return False

    def _heard(self, other: dict[str, Any]) -> str:
        age = time.time() - other["time"]
        if age < -1:
            return f"heard of {-age:.0f} s from now by its clock"
        return f"heard of {max(age, 0):.0f} s ago"

    def __exit__(self, *error: object) -> None:
        """Give the lease back, unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        _HELD.discard(self._token)
        with suppress(StorageError):  # one left behind is taken over: its process is gone
            if self._is_ours(patient=False):
                self._stored.set_small(WRITER, None, patient=False)

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

    def _holder(self, *, patient: bool = True) -> dict[str, Any] | None:
        """Return the lease that is stored; what is none, is nobody's."""
        found = self._stored.small(patient=patient).get(WRITER)
        kinds = {"host": str, "pid": int, "token": str, "time": float}
        if not isinstance(found, dict):
            return None
        whole = all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        return found if whole else None

    def _is_ours(self, *, patient: bool = True) -> bool:
        found = self._holder(patient=patient)
        return found is not None and found["token"] == self._token

    def _write(self, *, patient: bool = True) -> None:
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        value = {**mine, "time": round(time.time(), 1)}
        self._stored.set_small(WRITER, value, patient=patient)

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                if not self._is_ours(patient=False):
                    return  # ``check`` tells
                self._write(patient=False)
            except StorageError:
                continue  # out of reach for now: the run's own next write tells, if it still is


def _is_gone(other: dict[str, Any]) -> bool:
    """Return whether a lease's process is known to have ended."""
    if other["host"] != socket.gethostname():
        return False
    if other["pid"] == os.getpid():  # in a container every run may have the same number
        return other["token"] not in _HELD
    return not is_running(other["pid"])

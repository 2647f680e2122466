"""Runs in copies of this process: all is imported there, so a kill costs no start of Python."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError

REFUSED, BROKEN = 3, 4  # how a child ends: by an error of ours, by another


def child(work: Callable[[], object], limit: int | None = None) -> int:
    """Run ``work`` in a copy of this process, in a group of its own; return its number.

    Args:
        work: Its errors end the child.
        limit: Bytes that its files may have, as on a full disk.
    """
    with warnings.catch_warnings():  # since 3.12 fork warns of threads; none of them holds a lock
        warnings.simplefilter("ignore", DeprecationWarning)
        made = os.fork()
    if made:
        return made
    try:
        os.setpgid(0, 0)
        _share_servers()
        if limit is not None:
            full_disk(limit)
        work()
        os._exit(0)
    except MergeError as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)
        os._exit(BROKEN if "\n" in str(error) else REFUSED)
    except BaseException:
        traceback.print_exc()
        os._exit(BROKEN)
    raise AssertionError("a child went on")


def _share_servers() -> None:
    """Let this copy have workers begun by the server of the original, which is no child of it."""
    wait = os.waitpid

    def waited(number: int, how: int) -> tuple[int, int]:
        try:
            return wait(number, how)
        except ChildProcessError:
            return 0, 0  # it runs

    os.waitpid = waited


def workers_begin_in(module: str) -> Any:
    """Return a way to begin worker processes: as copies of one that has imported a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def begun_workers() -> list[int]:
    """Return the workers that were begun in such a way and run."""
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return [] if server is None else started_by(server)


def full_disk(limit: int) -> None:
    """Let no file of this process grow past so many bytes from now on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def ended(
    made: int, seconds: float | None = None, kill: Callable[[int], object] | None = None
) -> int:
    """Wait for a child; return its exit code, or minus the signal's number.

    Args:
        made: Its number.
        seconds: After which it is killed; None: never.
        kill: What is done instead of killing it alone.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(made, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() > until:
            (kill or kill_one)(made)
            until = None
        time.sleep(0.01)


def kill_one(number: int) -> None:
    """Kill a process, unless it has ended."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def kill_all(number: int) -> None:
    """Kill a process and all that it has started, unless they have ended."""
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        kill_one(number)


def started_by(number: int) -> list[int]:
    """Return the processes that a process has started and that run, directly or not."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if fields[0] != "Z":
                parents[int(folder.name)] = int(fields[1])
    found = [number]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return sorted(found[1:])

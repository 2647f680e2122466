"""One input after the other in a process of its own, with a deadline and a bound on memory.

The process is made ready once (libraries, a valid model) by a fork server, so another one costs
nothing when one has been ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from merge_core.errors import DocumentError, MergeError
from tests.fuzz import spoil

DEADLINE = 5.0  # seconds of work; a process that waits instead of working gets WAIT
WAIT = 20.0  # seconds on the clock: other programs may have the cores
ROOM = 2**30  # bytes of addresses above what the process has when it is ready
OUTCOMES = ("data", "clear error", "EXCEPTION", "over 5 s", "over 1 GB")
BAD = OUTCOMES[2:]
OURS = re.compile(r'File ".*/(merge_core|evaluators|search|mergetune)/[^"]*"')
LONGEST = 2000  # characters of a line of a clear error
# Neither pyarrow nor the C library may set gigabytes of addresses aside, which ROOM would count
ALLOCATORS = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
Call = Callable[[Path], Any]  # folder of the input -> nothing that matters


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    what: str  # one of OUTCOMES
    detail: str = ""  # the error's text, the traceback

    @property
    def place(self) -> str:
        """What tells one kind of failure from another: the error, and our last line before it."""
        lines = self.detail.strip().splitlines() or [""]
        ours = [line.strip() for line in lines if OURS.search(line)]
        newest_first = lines[0].startswith(("Current thread", "Thread", "Fatal"))
        where = ours[0 if newest_first else -1] if ours else ""
        return f"{self.what}: {'' if newest_first else lines[-1][:150]!a} {where}"


class Worker:
    """A process that is given inputs; ``template`` is a folder that each of them is laid over."""

    def __init__(self, template: Path) -> None:
        os.environ.update(ALLOCATORS)  # of the fork server, which starts with the first process
        self._template = template
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "tests.fuzz.warm"])
        self._stack = Path(tempfile.mkstemp(prefix="mergetune-fuzz-stack-")[1])
        self._process: Any = None
        self._pipe: Any = None

    def run(self, call: Call, files: spoil.Files) -> Outcome:
        """Return what a function makes of a folder with these files."""
        if self._process is None:
            self._start()
        self._pipe.send((call, files))
        started, worked = time.monotonic(), _seconds(self._process.pid)
        while not self._pipe.poll(0.5):
            used = _seconds(self._process.pid) - worked
            if not self._process.is_alive():
                return self._ended(f"the process died, exit code {self._process.exitcode}")
            if used > DEADLINE or time.monotonic() - started > WAIT:
                return self._ended(None)
        try:
            outcome: Outcome = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            return self._ended(f"the process died, exit code {self._process.exitcode}")
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._stack.unlink()

    def _ended(self, died: str | None) -> Outcome:
        if died is None:
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.5)  # until it has written where it is
        self.close()
        if died is None:
            return Outcome("over 5 s", self._stack.read_text())
        return Outcome("EXCEPTION", died)

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._template, self._stack), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready


def _seconds(pid: int) -> float:
    """Return the seconds that a process has worked."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(pipe: Connection, template: Path, stack: Path) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    sys.stdin, sys.stdout, sys.stderr = (open(os.devnull, mode) for mode in ("r", "w", "w"))  # noqa: SIM115
    home = Path(tempfile.mkdtemp(prefix="mergetune-fuzz-"))
    os.environ["MERGETUNE_CACHE"] = str(home / "cache")  # where models are unpacked
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * os.sysconf("SC_PAGE_SIZE") + ROOM
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # stays: what it starts bounds itself
    resource.setrlimit(resource.RLIMIT_AS, (room, hard))
    with stack.open("w") as where, contextlib.suppress(EOFError):  # whoever asks has gone
        faulthandler.register(signal.SIGUSR1, where)
        pipe.send("ready")
        while True:
            call, files = pipe.recv()
            pipe.send(_outcome(call, files, template, home))


def _outcome(call: Call, files: spoil.Files, template: Path, home: Path) -> Outcome:
    folder = home / "input"
    shutil.copytree(template, folder)
    spoil.write(files, folder)
    os.chdir(folder)
    try:
        call(folder)
    except MergeError as error:
        return _judged(error)
    except MemoryError:
        return Outcome("over 1 GB", traceback.format_exc())
    except BaseException:
        return Outcome("EXCEPTION", traceback.format_exc())
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
        shutil.rmtree(home / "cache", ignore_errors=True)
        gc.collect()
    return Outcome("data")


def _judged(error: MergeError) -> Outcome:
    """Return whether an error of ours is a clear one: short, one line for each thing wrong."""
    said, cause, seen = str(error), error.__cause__ or error.__context__, {id(error)}
    while cause is not None and id(cause) not in seen:  # libraries' chains may be circles
        seen.add(id(cause))
        if isinstance(cause, MemoryError):
            return Outcome("over 1 GB", traceback.format_exc())
        cause = cause.__cause__ or cause.__context__
    lines = len(error.problems) if isinstance(error, DocumentError) else 1
    if not said.strip() or len(said.splitlines()) > lines:
        return Outcome("EXCEPTION", f"an error of no, or of more, lines: {said!r:.2000}")
    if len(said) > LONGEST * lines:
        return Outcome("EXCEPTION", f"an error of {len(said)} characters: {said!r:.500}")
    return Outcome("clear error", f"{type(error).__name__}: {said}")

"""Optuna's journal file, written so that neither a torn line nor a dead writer's lock stays.

Optuna reads past a torn last line, but appends to it, and then nobody can read the file any more.
Its lock is a file beside it: of a process that was killed it stays, and is waited for 30 s.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from merge_core.processes import is_running

GRACE = 30  # seconds that a lock may stay as it is before it is taken away
HUSH = 2.0  # seconds that are waited without a word
_PARTS = {4: "a trial", 2: "an attribute of the study", 3: "an attribute of the study"}


class _Lock(JournalFileOpenLock):
    """Optuna's lock, which also says who holds it, so that one of a dead process is known."""

    def __init__(self, file: Path, told: Callable[[str], None]) -> None:
        super().__init__(str(file), grace_period=GRACE)
        self._told = told

    def acquire(self) -> bool:
        until = time.monotonic() + HUSH
        while time.monotonic() < until and self._stands():
            time.sleep(0.01)
        if self._stands():
            self._told(
                f"its lock {self._lock_file} is held by {self._holder() or 'another program'}, or "
                f"by one that died; waiting {GRACE} s for it"
            )
        super().acquire()
        Path(self._lock_file).write_text(f"{os.getpid()} {socket.gethostname()}", "utf-8")
        return True

    def _stands(self) -> bool:
        """Return whether another has the lock, whose process may be alive."""
        if not os.path.lexists(self._lock_file):
            return False
        pid, _, host = self._said().partition(" ")
        dead = pid.isdecimal() and host == socket.gethostname() and not is_running(int(pid))
        if dead:
            with suppress(RuntimeError):  # it was released this moment
                self.release()
        return not dead

    def _said(self) -> str:
        if os.path.islink(self._lock_file):
            return ""  # another program of Optuna's: a link to the journal
        with suppress(OSError):
            return Path(self._lock_file).read_text("utf-8", errors="replace")[:300]
        return ""

    def _holder(self) -> str:
        pid, _, host = self._said().partition(" ")
        return f"process {pid} on {host}" if pid.isdecimal() else ""


class JournalFile(JournalFileBackend):
    """A journal of which each append is whole or none.

    Args:
        file: The journal; it is made if it does not exist.
        told: Is told what was found, as what follows the storage's name.
    """

    def __init__(self, file: Path, told: Callable[[str], None]) -> None:
        super().__init__(str(file), _Lock(file, told))
        self._told = told

    def mend(self) -> None:
        """Cut off a last line that a writer left unfinished."""
        if self._torn():
            with self._locked():
                self._cut()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, all or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._locked():
            self._cut()
            before = os.path.getsize(self._file_path)
            file = os.open(self._file_path, os.O_WRONLY | os.O_APPEND)
            try:
                rest = memoryview(text.encode())
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            except OSError:  # such as a full disk, which may have taken a part
                os.truncate(file, before)
                raise
            finally:
                os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # waited for the disk so long that it was taken away
                self._lock.release()

    def _torn(self) -> bytes:
        """Return what stands after the last end of a line."""
        with open(self._file_path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            tail, at = b"", size
            while at > 0 and b"\n" not in tail:
                step = min(at, 2**16)
                at -= step
                file.seek(at)
                tail = file.read(step) + tail
        return tail.rpartition(b"\n")[2]

    def _cut(self) -> None:
        torn = self._torn()
        if not torn:
            return
        os.truncate(self._file_path, os.path.getsize(self._file_path) - len(torn))
        kind = re.match(rb'\{"op_code":(\d+),', torn)
        part = _PARTS.get(int(kind[1]), "an entry") if kind else "an entry"
        self._told(
            f"its last line was torn, since a run was killed or the disk was full while {part} was "
            f"written: {len(torn)} bytes of it are cut off, and all before them is whole"
        )

"""Anonymous memory of a process: what is not backed by a file."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType


def anonymous(pid: int) -> int:
    """Return the anonymous resident memory of a process in bytes; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(found[0]) * 1024 if found else 0


class Peak:
    """The greatest anonymous memory of this process while the block runs, in ``bytes``."""

    def __enter__(self) -> Peak:
        self.bytes = anonymous(os.getpid())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, anonymous(os.getpid()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

"""Workers that open nothing: what a process is told to do, it does."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from merge_core.errors import MergeError


class Odd(MergeError):
    """An error that cannot be pickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Fake:
    """See ``Opening``; ``broken``: it cannot be opened, or ends the process."""

    broken: str = ""
    environment: Any = ()

    def open(self) -> Any:
        if self.broken == "raises":
            raise MergeError("no such device")
        if self.broken == "dies":
            os._exit(3)
        os.environ.update(dict(self.environment))
        return self

    def pid(self) -> int:
        return os.getpid()

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def double(self, x: int, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        return 2 * x

    def odd(self) -> NoReturn:
        raise Odd("left", "right")

    def wrong(self) -> NoReturn:
        raise ZeroDivisionError("by zero")

    def die(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def die_once(self, file: Path) -> str:
        if not file.exists():
            file.touch()
            self.die()
        return "alive"

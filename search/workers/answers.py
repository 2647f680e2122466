"""What a call to a worker gives, as a value that travels: what it returned, or what it raised."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError


class RemoteTraceback(Exception):
    """Where in another process an error was raised."""


@dataclass(frozen=True)
class Answer:
    """What was returned, or raised and where."""

    value: Any = None
    error: Exception | None = None
    where: str = ""

    @classmethod
    def of(cls, work: Callable[[], Any]) -> Answer:
        """Do something, and keep what comes of it."""
        try:
            return cls(work())
        except Exception as error:
            return cls(error=_portable(error), where=traceback.format_exc())

    def given(self) -> Any:
        """Return what was returned, or raise what was raised."""
        if self.error is not None:
            raise self.error from RemoteTraceback(self.where)
        return self.value


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read, with the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = "" if isinstance(error, MergeError) else f"{type(error).__name__}: "
        return MergeError(f"{kind}{error}")
    return error

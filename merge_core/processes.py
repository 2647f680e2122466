"""Whether who left something behind still runs."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Return whether a process of this host may still run."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no number that processes have
        return True
    return True

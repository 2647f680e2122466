"""What nobody foresaw becomes one line; where it broke is kept in a file that the line names."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from merge_core.errors import MergeError
from search.trial.failure import InterruptedStudyError

TRACEBACK = "traceback.txt"  # in the results folder: of the latest run that broke


@contextmanager
def traceback_kept(folder: Path | None = None, hidden: Sequence[str] = ()) -> Iterator[None]:
    """Make one line of what nobody foresaw.

    Args:
        folder: Where the traceback is kept; None: in the folder for temporary files.
        hidden: What neither line nor traceback may have, such as a storage's password.

    Raises:
        MergeError: For every error, and as it is where it names all there is to know.
    """
    try:
        yield
    except InterruptedStudyError as error:
        raise _told(folder, str(error), error.traceback, hidden) from error
    except MergeError:
        raise
    except Exception as error:
        first = " ".join(str(error).split())
        line = f"{type(error).__name__}: {first}" if first else type(error).__name__
        raise _told(folder, line, traceback.format_exc(), hidden) from error


def _told(folder: Path | None, line: str, trace: str, hidden: Sequence[str]) -> MergeError:
    for secret in hidden:
        line, trace = line.replace(secret, "***"), trace.replace(secret, "***")
    try:
        file = _kept(folder, trace)
    except OSError as error:  # such as a full disk, which may be what broke
        return MergeError(f"{line} (its traceback could not be kept: {error.strerror})")
    return MergeError(f"{line} (traceback: {file})")


def _kept(folder: Path | None, trace: str) -> Path:
    if folder is None:
        handle, name = tempfile.mkstemp(prefix="mergetune-traceback-", suffix=".txt", text=True)
        os.close(handle)
        file = Path(name)
    else:
        file = folder / TRACEBACK
    file.write_text(trace, encoding="utf-8", errors="backslashreplace")
    return file

"""Files and folders that are whole or absent: filled under a hidden name, then renamed.

What is renamed is on the disk before (``fsync``), so that neither a kill nor a power cut leaves a
half one. A process that is killed leaves a hidden neighbour, ``.NAME.mergetune-HOST-PID.part``: the
next one that writes into that folder on this host takes it away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from merge_core.errors import OutputError, OutputExistsError
from merge_core.processes import is_running

_HIDDEN = re.compile(r"\.(.+)\.mergetune-(.+)-(\d+)\.(part|old)", re.DOTALL)
_CWD, _EXCHANGE = -100, 2  # of Linux: AT_FDCWD, RENAME_EXCHANGE
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # what a disk says that cannot exchange


def write_whole(target: Path, text: str) -> None:
    """Write a text file, whole or not at all; see :func:`make_whole`."""
    make_whole(target, lambda part: part.write_text(text, encoding="utf-8"))


def make_whole(target: Path, make: Callable[[Path], object]) -> None:
    """Let ``make`` write a hidden neighbour, then rename it onto ``target``; links are followed.

    Raises:
        OutputError: It cannot be written; what was there stays.
    """
    target = Path(os.path.realpath(target))
    with _told(target):
        part = _prepared(target)
        try:
            make(part)
            _synced(part)
            part.replace(target)  # rename is atomic on one disk
            _synced(target.parent)
        finally:
            _remove(part)


def fill_whole(target: Path, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let ``fill`` write into a hidden folder, then rename it to ``target``; links are followed.

    Args:
        target: Must not exist, unless it is an empty folder or ``overwrite`` is true.
        fill: Gets the hidden folder. If it raises, the folder goes and ``target`` stays as it was.
        overwrite: Replace what is there, by one exchange of names where the disk can do that.

    Raises:
        OutputExistsError: ``target`` is taken.
        OutputError: It cannot be written.
    """
    with filling(target, overwrite=overwrite) as part:
        fill(part)


@contextmanager
def filling(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield the hidden folder that becomes ``target`` in the end; see :func:`fill_whole`."""
    target = Path(os.path.realpath(target))
    with _told(target):
        part = _prepared(target)
        taken = _is_taken(target, overwrite)
        part.mkdir()
        try:
            yield part
            _synced_all(part)
            if taken:
                _exchange(part, target)
            else:
                part.replace(target)
            _synced(target.parent)
        finally:
            _remove(part)


def check_free(target: Path, *, overwrite: bool = False) -> None:
    """Raise what ``fill_whole`` would before it fills, as far as can be seen without writing."""
    target = Path(os.path.realpath(target))
    with _told(target):
        _is_taken(target, overwrite)
        above = next(folder for folder in target.parents if folder.exists())
        if not above.is_dir():
            raise OutputError(f"{target}: cannot be written: {above} is no folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise OutputError(f"{target}: cannot be written: Permission denied ({above})")


def _is_taken(target: Path, overwrite: bool) -> bool:
    """Return whether there is something to replace; raise if that may not be."""
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not overwrite:
        raise OutputExistsError(f"{target}: exists; choose another place or pass --overwrite")
    if os.path.ismount(target):
        raise OutputError(f"{target}: is a disk of its own; name a folder in it")
    return taken


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OutputError: It cannot be made.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except (OutputError, OutputExistsError):
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename not in (None, str(target)) else ""
        why = error.strerror or str(error)
        raise OutputError(f"{target}: cannot be written: {why}{where}") from error


def _prepared(target: Path) -> Path:
    """Return the hidden name of what is to be made; what dead processes left is swept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in target.parent.glob(".*.mergetune-*"):
        found = _HIDDEN.fullmatch(file.name)
        if found is None or found[2] != socket.gethostname():
            continue
        whole, pid = file.with_name(found[1]), int(found[3])
        ours = pid == os.getpid() and whole == target  # of an earlier process with our number
        if ours or not is_running(pid):
            if found[4] == "old" and not whole.exists():
                file.replace(whole)  # it died between two renames
            _remove(file)
    return _hidden(target, "part")


def _hidden(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.mergetune-{socket.gethostname()}-{os.getpid()}.{kind}")


def _remove(path: Path) -> None:
    """Remove a file or a folder as far as possible; what stays is swept later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchange(part: Path, target: Path) -> None:
    """Let two paths change their names at once, so that ``target`` is always there.

    Where that cannot be done there are two renames; a kill between them is mended by the sweep.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_CWD, os.fsencode(part), _CWD, os.fsencode(target), _EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _CANNOT:
            raise OSError(code, os.strerror(code), str(target))
    old = _hidden(target, "old")
    target.replace(old)
    try:
        part.replace(target)
    except OSError:
        old.replace(target)
        raise
    _remove(old)


def _synced_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        _synced(path)
    _synced(folder)


def _synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:  # some network disks cannot do that for folders
            raise
    finally:
        os.close(handle)

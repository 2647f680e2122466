"""Files of a cache in one folder: each with a check sum, together within a bound, the oldest go.

Any number of processes may share a folder. What a process has written or read stays while it runs:
a study that asks for more than there is room for would else lose each file before its next use.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import stat
from collections import deque
from pathlib import Path
from typing import NamedTuple

from merge_core.errors import ParameterError

BOUND = "MERGETUNE_CACHE_GIB"  # the environment variable; of one folder
DEFAULT = 50.0  # GiB
FILES = re.compile(r"[0-9a-f]{64}\.pt|\.[0-9a-f]{64}\.pt\.\d+\.part")
PAGE = 4096  # bytes: a disk gives whole ones
MAGIC = b"mergetune cache 1\n"
HEAD = len(MAGIC) + hashlib.sha256().digest_size


class Held(NamedTuple):
    """What is in a folder."""

    entries: int
    bytes: int


def bound() -> int:
    """Return how many bytes one folder may hold.

    Raises:
        ParameterError: The environment variable is no number of GiB.
    """
    text = os.environ.get(BOUND) or str(DEFAULT)
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < 2**30:
        raise ParameterError(f"{BOUND}: expected a number of GiB, 0 or more, got {text!r}")
    return int(gib * 2**30)


class CacheFolder:
    """Bytes by name; see the module.

    Args:
        folder: Is made when something is written.

    Raises:
        ParameterError: See :func:`bound`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bound = folder, bound()
        self._used: set[str] = set()  # names that this process has written or read
        self._oldest: deque[tuple[str, int]] | None = None  # name and bytes, once looked at
        self._bytes = self._room = 0  # that are held, as far as we know; that may be

    def read(self, name: str) -> bytes | None:
        """Return what was written; None if nothing was, or it is damaged: then it is removed.

        ``name``: 64 digits of a hexadecimal number.

        Raises:
            OSError: By the system.
        """
        file = self._file(name)
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):
                return None
            data = b"" if found.st_size > self.bound + HEAD else file.read_bytes()
        except FileNotFoundError:
            return None
        payload = data[HEAD:]
        if data[:HEAD] != _head(name, payload):
            self.remove(name)
            return None
        os.utime(file)
        self._used.add(name)
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Keep bytes under a name, if there is room for them or older files make it.

        Raises:
            OSError: By the system.
        """
        size = _taken(HEAD + len(payload))
        if not self._made_room(size):
            return
        file = self._file(name)
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as out:
                out.write(_head(name, payload))
                out.write(payload)
            part.replace(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._used.add(name)
        self._bytes += size

    def remove(self, name: str) -> None:
        """Remove what is kept under a name, if anything is.

        Raises:
            OSError: By the system.
        """
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _made_room(self, size: int) -> bool:
        if size > self.bound:
            return False
        if self._oldest is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = sorted(_files(self.folder), key=lambda file: file[2])
            self._oldest = deque((path.name, count) for path, count, _ in files)
            self._bytes = sum(count for _, count, _ in files)
            free = shutil.disk_usage(self.folder).free
            self._room = min(self.bound, self._bytes + free // 2)  # a full disk stops the study
        while self._bytes + size > self._room and self._oldest:
            name, count = self._oldest.popleft()
            if name.removesuffix(".pt") not in self._used:
                (self.folder / name).unlink(missing_ok=True)
                self._bytes -= count
        return self._bytes + size <= self._room


def held(folder: Path, names: re.Pattern[str] = FILES) -> Held:
    """Return what files of these names are in a folder; none if there is no folder.

    Raises:
        OSError: By the system.
    """
    sizes = [size for _, size, _ in _files(folder, names)]
    return Held(len(sizes), sum(sizes))


def clear(folder: Path, names: re.Pattern[str] = FILES) -> Held:
    """Remove the files of these names from a folder, and return what they were.

    Raises:
        OSError: By the system.
    """
    files = _files(folder, names)
    for path, _, _ in files:
        path.unlink(missing_ok=True)
    return Held(len(files), sum(size for _, size, _ in files))


def _files(folder: Path, names: re.Pattern[str] = FILES) -> list[tuple[Path, int, float]]:
    """Return the files of these names in a folder, their bytes, and when each was used last."""
    found = []
    if folder.is_dir():
        for entry in os.scandir(folder):
            if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                found.append((folder / entry.name, _taken(about.st_size), about.st_mtime))
    return found


def _taken(size: int) -> int:
    """Return the bytes of a disk that a file of so many takes."""
    return -(-size // PAGE) * PAGE


def _head(name: str, payload: bytes) -> bytes:
    state = hashlib.sha256(name.encode())
    state.update(payload)
    return MAGIC + state.digest()

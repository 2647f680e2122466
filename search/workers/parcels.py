"""Files that go to machines which do not have them, together, under the digest of what they hold.

A machine that has the very same files, as on a disk that it shares, reads these; one that has equal
files in the same place reads those; all others get them once and keep them in ``shipped`` of the
user's cache folder, where the next study finds them. All but the first are read whole and compared
by SHA-256 whenever a study begins to use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from merge_core.architecture import class_facts_cache
from merge_core.atomic_write import filling
from merge_core.errors import OutputError

PIECE = 32 * 2**20  # bytes that travel at a time


@dataclass(frozen=True)
class File:
    """One file: its name in the parcel, where it is on the coordinator's machine, and its state."""

    name: str
    path: str
    state: tuple[int, int, int]  # inode, bytes, time of the last change in ns

    @classmethod
    def of(cls, name: str, path: Path) -> File:
        """Look at a file of this machine."""
        return cls(name, str(path), _state(path))

    def is_here(self) -> bool:
        """Return whether this machine has the very file."""
        try:
            return _state(Path(self.path)) == self.state
        except OSError:
            return False

    def pieces(self) -> Iterator[bytes]:
        """Yield what it holds, in order; of an empty file one empty piece."""
        return _pieces(Path(self.path)) if self.state[1] else iter([b""])


@dataclass(frozen=True)
class Parcel:
    """Files that belong together, by their names; ``what`` they are, in words."""

    what: str
    files: tuple[File, ...]

    @classmethod
    def of(cls, what: str, files: Mapping[str, Path]) -> Parcel:
        """Pack files of this machine, by their names in the parcel: relative paths without ``..``.

        Raises:
            OSError: One cannot be read.
        """
        return cls(what, tuple(File.of(name, files[name]) for name in sorted(files)))

    def is_here(self) -> bool:
        """Return whether this machine has the very files."""
        return all(file.is_here() for file in self.files)

    def sealed(self) -> Sealed:
        """Read all files of the coordinator's machine.

        Raises:
            OSError: One cannot be read.
        """
        return Sealed(self, tuple(_hash(Path(file.path)) for file in self.files))


@dataclass(frozen=True)
class Sealed:
    """A parcel with the SHA-256 of each of its files."""

    parcel: Parcel
    hashes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and files, hex."""
        pairs = [[f.name, x] for f, x in zip(self.parcel.files, self.hashes, strict=True)]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where this machine keeps it, if it has been received.

        Raises:
            OutputError: The user has no home here, and names no cache folder.
        """
        cache = class_facts_cache.folder()
        if cache is None:
            raise OutputError("no cache: this user has no home; set MERGETUNE_CACHE to a folder")
        return cache.parent / "shipped" / self.digest

    def is_equal(self) -> bool:
        """Return whether this machine has equal files in the same places."""
        return self._holds([Path(file.path) for file in self.parcel.files])

    def is_kept(self) -> bool:
        """Return whether it was received earlier, and is still what it was."""
        return self._holds([self.folder / file.name for file in self.parcel.files])

    def _holds(self, places: list[Path]) -> bool:
        sizes = [file.state[1] for file in self.parcel.files]
        try:
            return sizes == [place.stat().st_size for place in places] and all(
                _hash(place) == known for place, known in zip(places, self.hashes, strict=True)
            )
        except OSError:
            return False


class Unpacking:
    """A parcel on its way into this machine's cache: piece by piece, and whole in the end or not.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, sealed: Sealed) -> None:
        self._sealed, self._stack = sealed, ExitStack()
        damaged = sealed.folder.exists()  # or it were used
        self._part = self._stack.enter_context(filling(sealed.folder, overwrite=damaged))

    def take(self, number: int, piece: bytes) -> None:
        """Add a piece to the file of a number, in the order of its pieces.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            place = self._part / self._sealed.parcel.files[number].name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("ab") as file:
                file.write(piece)
        except BaseException as error:
            self._left(error)

    def finish(self) -> None:
        """Compare what came with what was sent, and give it its name.

        Raises:
            OutputError: Something else came, or it cannot be written.
        """
        try:
            for file, known in zip(self._sealed.parcel.files, self._sealed.hashes, strict=True):
                if _hash(self._part / file.name) != known:
                    raise OutputError(
                        f"{file.path}: what came here is not what was sent: it changed on the way, "
                        "or while it was read; run again"
                    )
        except BaseException as error:
            self._left(error)
        self._stack.close()

    def _left(self, error: BaseException) -> None:
        """Take away what came so far, and raise the error in our words."""
        if not self._stack.__exit__(type(error), error, error.__traceback__):
            raise error


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _hash(path: Path) -> str:
    state = hashlib.sha256()
    for piece in _pieces(path):
        state.update(piece)
    return state.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece

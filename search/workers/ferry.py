"""Brings a study's files to machines that lack them, to each once, however many workers it has."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from merge_core.errors import OutputError
from search.workers.cargo import Cargo, Folders
from search.workers.parcels import Parcel, Sealed, Unpacking


class Landing(Protocol):
    """A machine, as the coordinator sees it."""

    def lacks(self, parcels: Sequence[Parcel]) -> list[int]:
        """Return which of the parcels this is not the very disk of."""
        ...

    def place_of(self, sealed: Sealed) -> str | None:
        """Return the folder that holds a parcel, "" for where its sender has it, None for none."""
        ...

    def receive(self, sealed: Sealed, pieces: Iterator[tuple[int, bytes]]) -> None:
        """Take in a parcel; of each piece the number of its file, all in order.

        Raises:
            OutputError: It cannot be written, or something else came.
        """
        ...


class Shore:
    """What a machine does to get a parcel; it lives there, in a worker's process."""

    def __init__(self) -> None:
        self._unpacking: Unpacking | None = None

    def lacks(self, parcels: Sequence[Parcel]) -> list[int]:
        """See ``Landing``."""
        return [i for i, parcel in enumerate(parcels) if not parcel.is_here()]

    def place_of(self, sealed: Sealed) -> str | None:
        """See ``Landing``; what is there is read whole."""
        if sealed.is_equal():
            return ""
        return str(sealed.folder) if sealed.is_kept() else None

    def shares(self, folders: Folders) -> bool:
        """Return whether what is written into these folders of the coordinator is seen here."""
        try:
            return all(os.stat(folder).st_ino == inode for folder, inode in folders)
        except OSError:
            return False

    def begin(self, sealed: Sealed) -> None:
        """Await the pieces of a parcel.

        Raises:
            OutputError: It cannot be written.
        """
        self._unpacking = Unpacking(sealed)

    def take(self, number: int, piece: bytes) -> None:
        """Add a piece to the file of a number.

        Raises:
            OutputError: It cannot be written.
        """
        assert self._unpacking is not None
        self._unpacking.take(number, piece)

    def finish(self) -> None:
        """Keep what came, if it is what was sent.

        Raises:
            OutputError: It is not, or cannot be kept.
        """
        assert self._unpacking is not None
        self._unpacking.finish()


class Ferry:
    """Knows what each machine has of a study.

    Args:
        cargo: The study's files, which are read whole when a machine lacks some.
    """

    def __init__(self, cargo: Cargo) -> None:
        self.cargo = cargo
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._sealed: dict[Parcel, Sealed] = {}
        self._places: dict[str, Mapping[Parcel, Path]] = {}

    def places(self, machine: str, landing: Landing) -> Mapping[Parcel, Path]:
        """Return where a machine has what it has elsewhere than the coordinator; bring the rest.

        Args:
            machine: Its name; those of one name share a disk.
            landing: The machine.

        Raises:
            OutputError: A file cannot be read here, or written there.
        """
        with self._lock:
            lock = self._locks[machine]
        with lock:
            if machine not in self._places:
                self._places[machine] = self._brought(landing)
            return self._places[machine]

    def _brought(self, landing: Landing) -> Mapping[Parcel, Path]:
        parcels, places = self.cargo.parcels, {}
        for i in landing.lacks(parcels):
            sealed = self._seal(parcels[i])
            place = landing.place_of(sealed)
            if place is None:
                landing.receive(sealed, _pieces(sealed))
                place = landing.place_of(sealed)
            if place is None:
                raise OutputError(f"{sealed.parcel.what}: was sent, and is not there; run again")
            if place:
                places[parcels[i]] = Path(place)
        return places

    def _seal(self, parcel: Parcel) -> Sealed:
        with self._lock:
            if parcel not in self._sealed:
                try:
                    self._sealed[parcel] = parcel.sealed()
                except OSError as error:
                    raise OutputError(
                        f"{error.filename}: cannot be read: {error.strerror}"
                    ) from error
            return self._sealed[parcel]


def _pieces(sealed: Sealed) -> Iterator[tuple[int, bytes]]:
    for number, file in enumerate(sealed.parcel.files):
        for piece in file.pieces():
            yield number, piece

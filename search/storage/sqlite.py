"""A study's SQLite file: it has a write-ahead log while a run writes it, and none afterwards.

With the log a reader (a dashboard, ``mergetune trials``) never stops the writer, and a commit does
not wait for the disk: a run that is killed loses nothing, a machine that loses its power the last
trials. A file that is copied, or lies where nobody may write, must not need its log beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event

from merge_core.errors import StorageError
from search.spec.storage_url import SQLITE
from search.storage.bulk import BulkStorage
from search.storage.file_systems import network_of

WAIT = 5.0  # seconds that SQLite itself waits for a lock; then it is tried again, with a notice


class SqliteStorage(BulkStorage):
    """A ``BulkStorage`` in a file whose path is taken as it is.

    SQLAlchemy would read options and codes in a path, and Optuna fills what stands in braces.

    Args:
        file: The database.
        options: Of ``sqlite3.connect``.
        create: Make Optuna's tables where there are none.
    """

    def __init__(self, file: Path, options: dict[str, Any], *, create: bool) -> None:
        self._door = _Door(file, options)
        super().__init__(f"{SQLITE}any.db", {"creator": self._door.connected}, create=create)
        self._door.known = file.stat().st_ino
        event.listen(self.engine, "begin", self._door.check)

    def taken(self, told: Callable[[str], None]) -> None:
        """Begin a log, with the next connection, where the machine's own disk has it."""
        if kind := network_of(self._door.file):
            told(f"lies on a network ({kind}), so it has no write-ahead log, and writing is slower")
            return
        self._door.logs = True
        self.engine.dispose()

    def released(self) -> None:
        """Write the log into the file and take it away, unless another process reads it now."""
        self._door.logs = False
        self.engine.dispose()
        self._door.check()
        with closing(sqlite3.connect(self._door.file, timeout=0)) as connection:
            try:
                connection.execute("PRAGMA journal_mode=DELETE")
            except sqlite3.OperationalError:  # it is read just now: the log stays
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


@dataclass
class _Door:
    """Makes connections."""

    file: Path
    options: dict[str, Any]
    logs: bool = False
    known: int = 0  # the file's number, once it is there

    def check(self, _: object = None) -> None:
        """Refuse to use a file that has its name no more: what is written there is lost.

        Raises:
            StorageError: It was removed, or another one has its name.
        """
        try:
            found = self.file.stat().st_ino
        except OSError:
            found = None
        if found != self.known:
            what = "removed" if found is None else "replaced by another file"
            raise StorageError(
                f"{SQLITE}{self.file}: was {what} while it was used; what was stored until then "
                "is in the one that was there: put it back and run again to go on"
            )

    def connected(self) -> sqlite3.Connection:
        options = {"timeout": WAIT, **self.options, "check_same_thread": False}
        connection: sqlite3.Connection = sqlite3.connect(self.file, **options)
        if self.logs:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.Error:
                connection.close()
                raise
            if mode == "wal":  # a network's file system may have none
                connection.execute("PRAGMA synchronous=NORMAL")
        return connection

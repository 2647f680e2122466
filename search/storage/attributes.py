"""What is stored of a study as a whole, kept in memory by the one process that writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from search.storage import chunks
from search.storage.stored import Stored


class Attributes:
    """A study's attributes as they were when they were read, with what was written since.

    A storage is asked for all of them each time, so they are read once. Who holds the study's lease
    is the only one who changes them.

    Args:
        stored: The study in its storage.
        damaged: Returns the error for a rule that what is stored breaks.
        check: Raises where this process may not write any more; asked before every commit.
    """

    def __init__(
        self,
        stored: Stored,
        damaged: Callable[[str], Exception],
        check: Callable[[], None],
    ) -> None:
        self._stored, self._damaged, self._check = stored, damaged, check
        self._raw: dict[str, Any] = {}
        self.values: dict[str, Any] = {}

    def read(self) -> None:
        """Read them all.

        Raises:
            StorageError: They cannot be read, or one is damaged.
        """
        self._raw = self._stored.attributes()
        try:
            self.values = chunks.joined(self._raw)
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def set(self, key: str, value: Any) -> None:
        """Store one: in one commit, or, where it is long, in several of which one counts.

        A process that is killed between two of them leaves the old value whole, or the new one.

        Raises:
            MergeError: Another process writes the study.
        """
        stored = chunks.cut({key: value})
        old = {name for name, x in chunks.pieces_of(key, self._raw).items() if x is not None}
        for name, part in stored.items():  # the key itself is the last
            if name == key or self._raw.get(name) != part:
                self._write(name, part)
        for name in old - stored.keys():
            self._write(name, None)  # Optuna knows no way to take an attribute away
        self.values[key] = json.loads(json.dumps(value))  # as it will be read

    def _write(self, name: str, value: Any) -> None:
        self._check()
        self._stored.set(name, value)
        self._raw[name] = value

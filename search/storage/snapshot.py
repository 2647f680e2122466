"""A copy of one study, whatever storage it is in, as an SQLite file of its own."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from merge_core.errors import StorageError
from search.storage.chunks import cut, joined
from search.storage.stored import Guard
from search.storage.study_record import Record

if TYPE_CHECKING:
    import optuna

PAGE = 4096  # bytes of a page of the file
WRITER = "writer"  # the attribute of earlier versions with who writes; now it is Optuna's own


class Change(Protocol):
    """What a copy says otherwise."""

    def attributes(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the study's attributes as the copy has them."""

    def trial(self, found: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
        """Return a trial as the copy has it; what is given is left as it is."""


@dataclass(frozen=True)
class Contents:
    """A study as its storage holds it, with what was cut put together.

    The attributes are read first: what was measured of a trial later stands there, so a study that
    runs meanwhile has at most more trials than these know of, as one that was killed.
    """

    name: str
    objectives: int
    attributes: Mapping[str, Any]
    trials: tuple[optuna.trial.FrozenTrial, ...]

    @classmethod
    def of(cls, record: Record) -> Contents:
        """Read a study.

        Raises:
            StorageError: It cannot be read.
        """
        stored = record.stored
        try:
            attributes = joined(stored.attributes())
            trials = tuple(_with(x, joined(x.user_attrs)) for x in stored.trials())
        except ValueError as error:
            where = f"study {record.name!r} in {record.url}"
            raise StorageError(f"{where} is damaged: {error}") from error
        return cls(record.name, record.objectives, attributes, trials)


def write(contents: Contents, file: Path, change: Change) -> None:
    """Write a study into a new SQLite file.

    The lease of who writes the study is left out. The same contents give the same bytes, from the
    same versions of Optuna and SQLite.

    Raises:
        StorageError: The file cannot be written.
    """
    import optuna

    from search.storage.bulk import BulkStorage

    url = f"sqlite:///{file}"
    with Guard(url).failing("written"):
        storage = BulkStorage("sqlite:///any.db", {"creator": lambda: _connected(file)})
        ways = [optuna.study.StudyDirection.MAXIMIZE] * contents.objectives
        study = optuna.create_study(storage=storage, study_name=contents.name, directions=ways)
        found = change.attributes({k: x for k, x in contents.attributes.items() if k != WRITER})
        for key, value in cut({key: found[key] for key in sorted(found)}).items():
            study.set_user_attr(key, value)
        for trial in contents.trials:
            study.add_trial(_in_order(change.trial(trial)))
        storage.engine.dispose()
        _packed(file)


def _in_order(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """Return a trial whose attributes stand in an order that no storage decides."""
    made = _with(trial, cut(dict(sorted(trial.user_attrs.items()))))
    made.system_attrs = dict(sorted(trial.system_attrs.items()))
    return made


def _with(trial: optuna.trial.FrozenTrial, attributes: dict[str, Any]) -> optuna.trial.FrozenTrial:
    made = copy.copy(trial)
    made.user_attrs = attributes
    return made


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE}")
    connection.execute("PRAGMA synchronous = OFF")  # the file counts when it is whole
    return connection


def _packed(file: Path) -> None:
    """Put the file's pages in the order of what they hold, without a second file beside it."""
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
    finally:
        connection.close()

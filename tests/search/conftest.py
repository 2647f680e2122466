"""Toy studies on databases that are copied, since making one takes as long as a whole search."""

from __future__ import annotations

import functools
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory

from merge_core import plugins
from search import cli
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial import builder
from tests.search import toy


@pytest.fixture(scope="module", autouse=True)
def nothing_is_read_twice() -> Iterator[None]:
    """Save what has nothing to do with a test: most of the time of a toy study, otherwise.

    Every look-up of a method reads all packages' entry points (10 ms), that of a version the
    package's metadata (5 ms), every opening of a database all of Optuna's migration scripts
    (100 ms), and every commit waits for the disk (an fsync protects from a power cut, not from
    ``kill -9``).
    """
    heads: dict[str, str | None] = {}
    read_head = ScriptDirectory.get_current_head

    def head(scripts: ScriptDirectory) -> str | None:
        if scripts.dir not in heads:
            heads[scripts.dir] = read_head(scripts)
        return heads[scripts.dir]

    def connected(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", connected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", functools.cache(plugins.entry_points))
        patch.setattr(builder, "version", functools.cache(builder.version))
        patch.setattr(ScriptDirectory, "get_current_head", head)
        yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", connected)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file with Optuna's tables and no study; copy it."""
    file = tmp_path_factory.mktemp("optuna") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}").engine.dispose()
    return file


@pytest.fixture
def study(tmp_path: Path, empty_database: Path) -> Callable[..., StudySpec]:
    """Return a toy study in a folder whose database has its tables already."""

    def get(text: str = toy.STUDY, folder: str = "study", **changes: Any) -> StudySpec:
        spec = toy.spec_of(text, tmp_path / folder, **changes)
        database = spec.results / "study.db"
        if not database.exists():
            spec.results.mkdir(parents=True)
            shutil.copy(empty_database, database)
        return spec

    return get


@pytest.fixture
def memory() -> Record:
    """Return a record that is kept in memory only."""
    return Record(optuna.create_study(direction="maximize"), "memory")


@pytest.fixture
def mergetune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Return the command line as a function: arguments in; exit code, stdout and stderr out."""

    def call(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["mergetune", *map(str, arguments)])
        heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in heard}
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        for number, handler in before.items():
            signal.signal(number, handler)
        return (code, *capsys.readouterr())

    return call

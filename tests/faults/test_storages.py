"""A storage that is locked, gone, killed, copied or torn while a study runs: nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from merge_core.errors import MergeError
from search.spec.study_file import StudySpec
from search.storage import stored
from search.storage.open import open_record
from tests.faults.children import child, ended
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, Toy, run, stored_in
from tests.search import toy
from tests.servers import Server

Study = Callable[..., StudySpec]


def at(number: int, work: Callable[[], object]) -> Callable[[str], None]:
    """Return what does something when the so-manieth candidate is scored on the search pool."""
    left = count(number, -1)

    def before(pool: str) -> None:
        if pool == "search" and next(left) == 1:
            work()

    return before


def settled(spec: StudySpec) -> End:
    return end_of(open_record(spec.storage, spec.name))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs wait for no storage for long."""
    monkeypatch.setattr(stored, "PATIENCE", 1.0)
    monkeypatch.setattr("search.storage.sqlite.WAIT", 0.1)


class Holder:
    """Another program that holds an SQLite file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def hold(self) -> None:
        self._held = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._held.execute("begin immediate")

    def hold_for_a_while(self) -> None:
        self.hold()
        threading.Timer(1.5, self.release).start()

    def release(self) -> None:
        self._held.close()


@pytest.mark.slow
def test_a_database_that_another_program_holds_for_a_while_is_waited_for(
    study: Study, unbroken: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.storage.sqlite.WAIT", 0.1)
    spec = study(TEXT)
    heard = toy.Listener()
    other = Holder(spec.results / "study.db")
    assert run(spec, Toy(spec, at(8, other.hold_for_a_while)), heard=heard) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_database_that_another_program_keeps_ends_the_run_and_the_next_goes_on(
    study: Study, unbroken: End
) -> None:
    spec = study(TEXT)
    other = Holder(spec.results / "study.db")
    with pytest.raises(MergeError, match="locked; another program has held it") as told:
        run(spec, Toy(spec, at(8, other.hold)))
    other.release()
    assert "\n" not in str(told.value)
    assert len(settled(spec).trials) == 7
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_is_gone_while_a_run_writes_it_ends_the_run(
    study: Study, unbroken: End, how: str, tmp_path: Path
) -> None:
    spec = study(TEXT)
    file = spec.results / "study.db"

    def go() -> None:
        if how == "removed":
            file.rename(tmp_path / "away.db")
        else:
            with (
                closing(sqlite3.connect(file)) as ours,
                closing(sqlite3.connect(tmp_path / "new")) as new,
            ):
                ours.backup(new)
            (tmp_path / "new").replace(file)

    with pytest.raises(MergeError, match=r"study\.db: was (removed|replaced)"):
        run(spec, Toy(spec, at(8, go)))
    if how == "removed":
        (tmp_path / "away.db").rename(file)
    assert_settled(settled(spec), unbroken)
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


def backed_up(file: Path, copy: Path) -> None:
    """Copy a database as ``sqlite3 study.db '.backup copy.db'`` does."""
    with closing(sqlite3.connect(file)) as ours, closing(sqlite3.connect(copy)) as theirs:
        ours.backup(theirs)


@pytest.mark.parametrize("copied", [shutil.copy, backed_up])
def test_a_copy_of_a_database_that_is_written_goes_on_from_what_it_has(
    study: Study, unbroken: End, copied: Callable[[Path, Path], object]
) -> None:
    """A copy of the file alone lacks what is only in its log; a backup has all."""
    spec, other = study(TEXT), study(TEXT, folder="copy")
    file, copy = spec.results / "study.db", other.results / "study.db"
    assert run(spec, Toy(spec, at(8, lambda: copied(file, copy)))) is not None
    assert_same(spec.storage, unbroken)
    if copied is backed_up:
        assert len(settled(other).trials) == 7
    assert run(other) is not None
    assert_same(other.storage, unbroken)


def test_a_journal_whose_last_line_is_torn_loses_what_was_in_flight_alone(
    tmp_path: Path, unbroken: End
) -> None:
    spec = stored_in(f"journal:///{tmp_path}/study.log", tmp_path / "study")
    for number in (6, 13, 10):
        left, write = count(number, -1), os.write

        def torn(file: int, data: Any, left: Any = left, write: Any = write) -> int:
            if next(left) == 1:
                write(file, bytes(data)[: len(data) // 2])
                toy.die()
            return int(write(file, data))

        def work(torn: Any = torn) -> None:
            os.write = torn
            assert run(spec)

        assert ended(child(work)) == -signal.SIGKILL
        assert_settled(settled(spec), unbroken)
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


def test_a_journal_that_is_gone_while_a_run_writes_it_ends_the_run(
    tmp_path: Path, unbroken: End
) -> None:
    file = tmp_path / "study.log"
    spec = stored_in(f"journal:///{file}", tmp_path / "study")
    with pytest.raises(MergeError, match=r"study\.log") as told:
        run(spec, Toy(spec, at(8, lambda: file.rename(tmp_path / "away"))))
    assert "\n" not in str(told.value)
    file.unlink(missing_ok=True)
    (tmp_path / "away").rename(file)
    assert len(settled(spec).trials) == 7
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


def crash_at_commit(server: Server, number: int, when: str, back: float | None) -> Any:
    """Kill a server at a commit that changes something; start it again after so many seconds.

    ``after`` it, the server has all, and its answer is lost.
    """
    left, wrote = count(number, -1), False

    def start() -> None:
        time.sleep(back or 0)
        server.start()
        threading.Event().wait()  # a server ends with the thread that has started it

    def executing(_: object, __: object, statement: str, *___: object) -> None:
        nonlocal wrote
        wrote = wrote or statement.startswith(("INSERT", "UPDATE", "DELETE"))

    def committing(connection: Any) -> None:
        nonlocal wrote
        if wrote and next(left) == 1:
            if when == "after":
                connection.connection.commit()
            server.stop(signal.SIGKILL)
            if back is not None:
                threading.Thread(target=start, daemon=True).start()
        wrote = False

    listening = {"before_cursor_execute": executing, "commit": committing}
    for event, heard in listening.items():
        sqlalchemy.event.listen(sqlalchemy.Engine, event, heard)
    return lambda: [
        sqlalchemy.event.remove(sqlalchemy.Engine, event, heard)
        for event, heard in listening.items()
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_crashes_in_a_commit_and_comes_back_is_waited_for(
    postgres: Server, tmp_path: Path, unbroken: End, when: str
) -> None:
    spec = stored_in(postgres.database(), tmp_path / "study")
    for number in (9, 14):
        remove = crash_at_commit(postgres, number, when, back=0.5)
        asked = iter([False] * 6)
        run(spec, stop=lambda left=asked: next(left, True))  # type: ignore[misc]
        remove()
        assert_settled(settled(spec), unbroken)
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient", "closed")
def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(
    postgres: Server, tmp_path: Path, unbroken: End
) -> None:
    spec = stored_in(postgres.database(), tmp_path / "study")
    remove = crash_at_commit(postgres, 12, "before", back=None)
    with pytest.raises(MergeError, match="connection") as told:
        run(spec)
    remove()
    assert "\n" not in str(told.value)
    assert "SECRET" not in str(told.value)
    postgres.start()
    assert_settled(settled(spec), unbroken)
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)

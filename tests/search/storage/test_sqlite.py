"""An SQLite file has a log beside it while a run writes it, and nothing afterwards."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from merge_core.errors import UnknownNameError
from merge_core.recipe.schema import Recipe, Source
from search.storage import sqlite, stored
from search.storage.file_systems import network_of
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Trial
from tests.search import toy

RECIPE = Recipe("linear", (Source("one", (("weight", 1.0),)),))


def trial(number: int) -> Trial:
    return Trial(number, "complete", RECIPE, value=0.5)


def mode(file: Path) -> str:
    with sqlite3.connect(file) as connection:
        found: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    return found


def beside(file: Path) -> set[str]:
    return {x.name for x in file.parent.iterdir()} - {file.name}


def stored_in(file: Path) -> int:
    """Return how many trials are stored, and leave nothing open."""
    count = len(open_record(f"sqlite:///{file}", "toy").trials)
    gc.collect()
    return count


@pytest.fixture
def file(record: Record, tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def test_a_run_has_a_log_and_leaves_one_plain_file(record: Record, file: Path) -> None:
    with record.writing():
        record.add(trial(0), {})
        assert beside(file) == {"study.db-wal", "study.db-shm"}
        assert mode(file) == "wal"
        backend = record._stored._study._storage._backend
        with backend.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() in (0, 1)  # not FULL
        assert stored_in(file) == 1  # who reads sees what is committed
    assert beside(file) == set()
    assert mode(file) == "delete"
    assert stored_in(Path(shutil.copy(file, file.parent / "copy.db"))) == 1


def test_a_reader_that_stays_keeps_the_log_and_no_trial_is_lost(record: Record, file: Path) -> None:
    with record.writing():
        record.add(trial(0), {})
        reader = sqlite3.connect(file, isolation_level=None)
        reader.execute("SELECT * FROM trials").fetchall()
        record.add(trial(1), {})
    copy = Path(shutil.copy(file, file.parent / "copy.db"))
    reader.close()
    assert (stored_in(file), stored_in(copy)) == (2, 2)
    with (again := open_record(record.url, "toy", create=True)).writing():
        again.add(trial(2), {})
    assert beside(file) == {"copy.db"}


def test_a_run_that_is_killed_leaves_a_log_that_the_next_one_takes_up(
    record: Record, file: Path
) -> None:
    def killed() -> None:
        child = open_record(record.url, "toy", create=True)
        with child.writing():
            child.add(trial(0), {})
            toy.die()

    assert toy.end_of_child(killed) == -9
    assert "study.db-wal" in beside(file)
    with (again := open_record(record.url, "toy", create=True)).writing():
        assert again.trials == [trial(0)]
        again.add(trial(1), {})
    assert beside(file) == set()


def test_a_file_that_another_program_locks_for_a_while_is_waited_for_with_a_notice(
    record: Record, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PAUSE", 0.05)
    said: list[str] = []
    patient = open_record(f"{record.url}?timeout=0.05", "toy", create=True, notice=said.append)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    freed = threading.Thread(target=lambda: (time.sleep(0.5), other.close()))
    freed.start()
    patient.add(trial(0), {})
    freed.join()
    assert [line.partition("study.db?timeout=0.05: ")[2][:5] for line in said] == ["away ", "back "]
    assert len(open_record(record.url, "toy").trials) == 1


MOUNTS = """/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/scratch\\040disk xfs rw 0 0
fast@o2ib:/work /work lustre rw 0 0
tmpfs /work2 tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/data/study.db", ""),
        ("/home/me/results/study.db", "nfs4"),
        ("/home/me/scratch disk/study.db", ""),
        ("/work/study.db", "lustre"),
        ("/work2/study.db", ""),
    ],
)
def test_a_networks_file_system_is_known(file: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert network_of(Path(file), tmp_path / "mounts") == kind
    assert network_of(Path(file), tmp_path / "none") == ""


def test_a_file_on_a_network_has_no_log_and_that_is_told(
    record: Record, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "network_of", lambda _: "nfs4")
    said: list[str] = []
    with (remote := open_record(record.url, "toy", create=True, notice=said.append)).writing():
        remote.add(trial(0), {})
        assert mode(file) == "delete"
    assert said == [f"storage {record.url}: {NO_LOG}"]


NO_LOG = "lies on a network (nfs4), so it has no write-ahead log, and writing is slower"


def test_a_database_of_something_else_is_not_written_by_who_reads_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(UnknownNameError, match=r"other\.db: holds no studies; `mergetune run` the"):
        open_record(f"sqlite:///{tmp_path}/other.db")
    assert (tmp_path / "other.db").read_bytes() == before

"""A journal whose writer was killed, or had no room, is whole again when the next one writes."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from merge_core.errors import StorageError
from merge_core.recipe.schema import Recipe, Source
from search.storage import journal, stored
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Trial
from tests.search import toy

RECIPE = Recipe("linear", (Source("one", (("weight", 1.0),)),))


def trial(number: int) -> Trial:
    return Trial(number, "complete", RECIPE, value=0.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


def opened(file: Path, said: list[str] | None = None, **how: Any) -> Record:
    told = (lambda _: None) if said is None else said.append
    return open_record(f"journal:///{file}", "toy", notice=told, **how)


def with_trials(file: Path, count: int) -> None:
    record = opened(file, create=True)
    for number in range(count):
        record.add(trial(number), {})


@pytest.mark.parametrize("left", [1, 100, 0.5, -1])
def test_a_torn_last_line_is_cut_off_and_told_and_all_before_it_is_kept(
    file: Path, left: float
) -> None:
    with_trials(file, 3)
    text = file.read_bytes()
    start = text.rstrip(b"\n").rfind(b"\n") + 1
    size = {0.5: (start + len(text)) // 2, -1: len(text) - 1}.get(left, start + int(left))
    file.write_bytes(text[:size])
    assert len(opened(file).trials) == 2  # who reads, writes nothing
    assert len(file.read_bytes()) == size
    said: list[str] = []
    record = opened(file, said, create=True)
    (line,) = said
    what = "a trial" if left != 1 else "an entry"
    assert line.startswith(f"storage journal:///{file}: its last line was torn, since a run was ")
    assert f"while {what} was written: {size - start} bytes of it are cut off" in line
    assert record.trials == [trial(0), trial(1)]
    record.add(trial(2), {})
    assert opened(file).trials == [trial(0), trial(1), trial(2)]
    assert file.read_bytes().count(b"\n") == text.count(b"\n")


def test_a_line_that_another_tears_while_a_run_goes_on_is_cut_off(file: Path) -> None:
    said: list[str] = []
    record = opened(file, said, create=True)
    record.add(trial(0), {})
    with file.open("ab") as other:
        other.write(b'{"op_code":3,"worker_id":"x"')
    record.add(trial(1), {})
    assert "while an attribute of the study was written: 28 bytes" in said[0]
    assert len(opened(file).trials) == 2


def test_a_disk_without_room_leaves_no_part_of_a_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trials(file, 1)
    before, record, write = file.read_bytes(), opened(file), os.write

    def full(target: int, data: Any) -> int:
        if len(data) > 50:
            return write(target, data[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal.os, "write", lambda to, data: full(to, bytes(data)[:90]))
    with pytest.raises(StorageError, match=r"cannot be written: .*No space left on device; make"):
        record.add(trial(1), {})
    monkeypatch.undo()
    assert file.read_bytes() == before
    record.add(trial(1), {})
    assert len(opened(file).trials) == 2


def test_the_lock_of_a_process_that_was_killed_bars_nobody(file: Path) -> None:
    with_trials(file, 1)

    def killed() -> None:
        record = opened(file)
        journal.os.fsync = toy.die  # type: ignore[assignment]
        record.add(trial(1), {})

    assert toy.end_of_child(killed) == -9
    assert Path(f"{file}.lock").read_text().endswith(socket.gethostname())
    began, record = time.monotonic(), opened(file)
    record.add(trial(len(record.trials)), {})
    assert time.monotonic() - began < 2
    assert not Path(f"{file}.lock").exists()


@pytest.mark.slow
def test_a_lock_of_another_program_is_explained_and_taken_away_when_it_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trials(file, 1)
    monkeypatch.setattr(journal, "HUSH", 0.1)
    monkeypatch.setattr(journal, "GRACE", 3)
    said: list[str] = []
    record = opened(file, said)
    JournalFileSymlinkLock(str(file)).acquire()  # as by a dashboard that died
    record.add(trial(1), {})
    (line,) = said
    assert line.startswith(f"storage journal:///{file}: its lock {file}.lock is held by another ")
    assert line.endswith(" program, or by one that died; waiting 3 s for it")
    assert len(opened(file).trials) == 2


def test_other_programs_of_optuna_read_and_write_the_journal(file: Path) -> None:
    with_trials(file, 1)
    theirs = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    study = optuna.load_study(storage=theirs, study_name="toy")
    study.set_user_attr("note", "mine")
    record = opened(file)
    assert record._stored.attributes()["note"] == "mine"
    record.add(trial(1), {})
    assert len(study.trials) == 2


@pytest.mark.parametrize("line", [b"no json\n", b'{"op_code":4}\n', b'{"op_code":99}\n'])
def test_a_line_that_is_damaged_in_the_middle_is_one_line(file: Path, line: bytes) -> None:
    with_trials(file, 1)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(
        StorageError, match=rf"^storage journal:///{file}: cannot be opened: "
    ) as told:
        opened(file)
    assert "\n" not in str(told.value)


def test_a_lost_write_is_not_done_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_trials(file, 1)
    monkeypatch.setattr(stored, "PAUSE", 0)
    record, append = opened(file), journal.JournalFile.append_logs
    lost: list[int] = []

    def lose(self: Any, logs: Any) -> None:
        append(self, logs)
        if not lost:
            lost.append(1)
            raise ConnectionError("lost")

    monkeypatch.setattr(journal.JournalFile, "append_logs", lose)
    record.add(trial(1), {})
    assert lost
    entries = [json.loads(x) for x in file.read_text().splitlines()]
    assert len([x for x in entries if x["op_code"] == 4]) == 2

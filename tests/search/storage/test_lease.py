"""Two runs never write one study, wherever they run; a run that died bars nobody."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import optuna
import pytest

from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe, Source
from search.storage import lease
from search.storage.lease import WRITER, Lease
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search import toy

RECIPE = Recipe("linear", (Source("one", (("weight", 1.0),)),))


def trial(number: int) -> Trial:
    return Trial(number, "complete", RECIPE, value=0.5)


def stored(record: Record) -> optuna.Study:
    return optuna.load_study(storage=record.url, study_name="toy")


def held_by(record: Record, **changes: Any) -> None:
    """Store a lease of another process."""
    other = {"host": "elsewhere", "pid": 4711, "token": "x", "time": time.time() - 30, **changes}
    study = stored(record)
    study._storage.set_study_system_attr(study._study_id, WRITER, other)


def lease_of(record: Record) -> Any:
    """Return the stored lease."""
    study = stored(record)
    return study._storage.get_study_system_attrs(study._study_id).get(WRITER)


def test_a_second_writer_is_refused_with_host_and_process_of_the_first(record: Record) -> None:
    with record.writing():
        second = open_record(record.url, "toy")
        rule = rf"^study 'toy' in sqlite:.* is being run by process {os.getpid()} on "
        with pytest.raises(MergeError, match=rule + socket.gethostname()), second.writing():
            pass
        record.add(trial(0), {})
    with second.writing():
        assert second.trials == [trial(0)]  # as it is now, not as it was when it was opened
        second.add(trial(1), {})


def test_a_lease_of_another_machine_holds_while_it_is_renewed(record: Record) -> None:
    held_by(record)
    with pytest.raises(MergeError, match=r"process 4711 on elsewhere, heard of 30 s ago"):
        record.writing().__enter__()


@pytest.mark.parametrize(
    "changes",
    [
        {"time": time.time() - 1000},
        {"time": time.time() + 1000},  # by a clock that was wrong, its or ours
        {"host": socket.gethostname(), "pid": 2**22 + 1},  # no such process
        {"host": socket.gethostname(), "pid": os.getpid()},  # as in a container started anew
    ],
)
def test_a_lease_of_a_run_that_is_dead_is_taken_over(
    record: Record, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.1)
    held_by(record, **changes)
    with record.writing():
        record.add(trial(0), {})
    assert lease_of(record) is None


@pytest.mark.parametrize("wrong", [-100_000, 100_000])
def test_a_lease_of_a_run_whose_clock_is_wrong_is_not_taken_over(
    record: Record, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 1.0)
    ended = threading.Event()

    def renewed() -> None:
        while not ended.wait(0.1):
            held_by(record, time=time.time() + wrong)

    held_by(record, time=time.time() + wrong)
    other = threading.Thread(target=renewed)
    other.start()
    try:
        when = "from now by its clock" if wrong > 0 else "ago"
        with pytest.raises(
            MergeError, match=rf"process 4711 on elsewhere, heard of (99999|10000.) s {when}"
        ):
            record.writing().__enter__()
    finally:
        ended.set()
        other.join()


def test_a_run_that_is_killed_bars_nobody_on_its_machine(record: Record) -> None:
    def killed() -> None:
        with open_record(record.url, "toy").writing():
            toy.die()

    assert toy.end_of_child(killed) == -9
    assert lease_of(record)
    with record.writing():
        pass


def test_a_lease_is_renewed_as_long_as_it_is_held(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with record.writing():
        first = lease_of(record)["time"]
        until = time.monotonic() + 10
        while lease_of(record)["time"] == first:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize("write", ["trial", "scores", "about", "summary"])
def test_who_lost_the_lease_writes_nothing_more(record: Record, write: str) -> None:
    with record.writing():
        record.add(trial(0), {})
        held_by(record)
        writes = {
            "trial": lambda: record.add(trial(1), {}),
            "scores": lambda: record.add_measured("select", 0, Measurement({"a": [0.5]})),
            "about": lambda: record.begin({"format": 1}),
            "summary": lambda: record.finish({"format": 1}),
        }
        with pytest.raises(MergeError, match=r"was taken over by process 4711 on elsewhere"):
            writes[write]()
    assert lease_of(record)["pid"] == 4711
    assert (len(stored(record).trials), set(stored(record).user_attrs)) == (1, set())


@pytest.mark.parametrize("write", ["scores", "about", "summary"])
def test_a_trial_that_another_added_without_a_lease_is_noticed_before_every_write(
    record: Record, write: str
) -> None:
    with record.writing():
        record.add(trial(0), {})
        stored(record).add_trial(optuna.trial.create_trial(value=0.5))
        writes = {
            "scores": lambda: record.add_measured("select", 0, Measurement({"a": [0.5]})),
            "about": lambda: record.begin({"format": 1}),
            "summary": lambda: record.finish({"format": 1}),
        }
        with pytest.raises(MergeError, match="has 2 trials where this run has stored 1: another"):
            writes[write]()
    assert set(stored(record).user_attrs) == set()


def test_a_lease_that_another_wrote_over_at_the_same_moment_is_refused(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Lease._write

    def both(self: Lease) -> None:
        write(self)
        held_by(record)

    monkeypatch.setattr(Lease, "_write", both)
    with pytest.raises(MergeError, match="taken over by process 4711"):
        record.writing().__enter__()


def test_a_trial_whose_number_another_took_is_refused(record: Record) -> None:
    other = open_record(record.url, "toy")
    record.add(trial(0), {})
    with pytest.raises(MergeError, match="has 1 trials where this run has stored 0: another"):
        other.add(trial(0), {})
    assert len(stored(record).trials) == 1

"""Two runs of one study at once, on one machine or on two: one writes, the other says who does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from merge_core.errors import MergeError
from search.spec.study_file import StudySpec
from search.storage import lease
from search.storage.open import open_record
from tests.faults.children import REFUSED, child, ended
from tests.faults.same import End, assert_same
from tests.faults.whole import TEXT, Toy, run, stored_in
from tests.search import toy
from tests.servers import Server

Study = Callable[..., StudySpec]
HOURS = 5 * 3600


def slowly(_: str) -> None:
    time.sleep(0.05)


def on_machine(name: str, ahead: float = 0.0) -> None:
    """Let this process be one of another machine, whose clock is so many seconds ahead."""
    now = time.time
    socket.gethostname = lambda: name
    time.time = lambda: now() + ahead


@pytest.fixture
def running(study: Study, monkeypatch: pytest.MonkeyPatch) -> tuple[StudySpec, int]:
    """A study and a run of it, which is in the middle."""
    monkeypatch.setattr(lease, "BEAT", 0.1)  # of both
    spec = study(TEXT)
    first = child(lambda: run(spec, Toy(spec, slowly)))
    until = time.monotonic() + 30
    while len(open_record(spec.storage, spec.name, create=True).trials) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    return spec, first


@pytest.mark.parametrize("place", ["same folder", "another folder"])
def test_a_second_run_is_refused_with_what_writes_and_the_first_is_the_unbroken_one(
    running: tuple[StudySpec, int], unbroken: End, tmp_path: Path, place: str
) -> None:
    spec, first = running
    other = spec if place == "same folder" else stored_in(spec.storage, tmp_path / "other")
    what = "another run of this study" if other is spec else f"being run by process {first} on "
    with pytest.raises(MergeError, match=what):
        run(other)
    assert ended(first) == 0
    assert_same(spec.storage, unbroken)
    assert run(other) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.parametrize("ahead", [-HOURS, 0, HOURS])
def test_a_run_on_another_machine_is_refused_whatever_its_clock_says(
    running: tuple[StudySpec, int], unbroken: End, tmp_path: Path, ahead: float
) -> None:
    spec, first = running
    other = stored_in(spec.storage, tmp_path / "other")

    def elsewhere() -> None:
        on_machine("elsewhere", ahead)
        run(other)

    assert ended(child(elsewhere)) == REFUSED
    assert ended(first) == 0
    assert_same(spec.storage, unbroken)


@pytest.mark.slow
@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "journal"])
def test_of_two_machines_that_start_a_study_at_one_moment_one_does_all_of_it(
    tmp_path: Path, unbroken: End, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        server: Server = request.getfixturevalue("postgres")
        url = server.database()
    else:
        url = f"{kind}:///{tmp_path}/study.db"

    def start(name: str) -> int:
        spec = stored_in(url, tmp_path / name)

        def work() -> None:
            on_machine(name)
            run(spec, Toy(spec, slowly))

        return child(work)

    both = [start("one"), start("two")]
    codes = sorted(ended(one) for one in both)
    assert codes in ([0, REFUSED], [REFUSED, REFUSED])
    assert run(stored_in(url, tmp_path / "three")) is not None
    assert_same(open_record(stored_in(url, tmp_path / "three").storage), unbroken)


@pytest.mark.parametrize("ahead", [-HOURS, HOURS])
def test_a_clock_that_jumps_changes_neither_budget_nor_durations_nor_who_writes(
    study: Study, unbroken: End, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = time.time, iter(range(10**6))

    def jump(pool: str) -> None:
        if pool == "search" and next(calls) == 8:
            monkeypatch.setattr(time, "time", lambda: now() + ahead)

    monkeypatch.setattr(lease, "BEAT", 0.05)
    spec = study(TEXT, hours=1.0)
    assert run(spec, Toy(spec, jump)) is not None
    record = open_record(spec.storage, spec.name)
    spent = [x for trial in record.trials for x in trial.search.seconds.values()]
    assert all(-0.1 <= x < 30 for x in spent)
    assert len(record.trials) == len(unbroken.trials)
    assert [t.weights_digest for t in record.trials] == [
        t["weights_digest"] for t in unbroken.trials
    ]
    toy.searched(spec)  # nor does the next run take itself for another

"""Workers and their coordinator are killed, signalled and starved: the study is the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.views.stopping import Stopper
from tests.faults.children import child, ended, kill_all, kill_one
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, run
from tests.search import toy

Study = Callable[..., StudySpec]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> End:
    """Return what an unbroken run with two workers leaves."""
    spec = toy.spec_of(TEXT, tmp_path_factory.mktemp("by-two"))
    assert run(spec, workers=2) is not None
    return end_of(spec.storage)


class Listener(toy.Listener):
    """Does something after some trials."""

    def __init__(self, work: Callable[[], object], *after: int) -> None:
        super().__init__()
        self._work, self._after = work, after

    def settled(self, trial: object) -> None:
        super().settled(trial)
        if len(self.trials) in self._after:
            self._work()


def has_ended(number: str) -> bool:
    until = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    return not Path(f"/proc/{number}").exists()


def kill_a_worker() -> None:
    """Kill one as the kernel does for want of memory."""
    worker = multiprocessing.active_children()[-1]
    assert worker.pid is not None
    kill_one(worker.pid)


def test_workers_that_the_kernel_kills_are_replaced_and_the_study_is_the_same(
    study: Study, by_two: End
) -> None:
    spec = study(TEXT)
    assert run(spec, heard=Listener(kill_a_worker, 3, 7, 12, 16), workers=2) is not None
    assert_same(spec.storage, by_two)


@pytest.mark.parametrize("kill", [kill_one, kill_all])
def test_a_coordinator_that_is_killed_leaves_no_worker_and_its_study_is_the_same(
    study: Study, by_two: End, kill: Callable[[int], None], tmp_path: Path
) -> None:
    spec = study(TEXT)
    for number, after in enumerate((2, 5, 6)):
        file = tmp_path / f"workers{number}"

        def die(file: Path = file) -> None:
            pids = [str(worker.pid) for worker in multiprocessing.active_children()]
            file.write_text(" ".join(pids))
            kill(os.getpid())

        def work(die: Callable[[], None] = die, after: int = after) -> None:
            run(spec, heard=Listener(die, after), workers=2)

        assert ended(child(work)) == -signal.SIGKILL
        workers = file.read_text().split()
        assert len(workers) == 2
        assert all(map(has_ended, workers))
        assert_settled(end_of(open_record(spec.storage, spec.name)), by_two)
    assert run(spec, workers=2) is not None
    assert_same(spec.storage, by_two)


@pytest.mark.usefixtures("signals")
def test_sigterm_to_coordinator_and_workers_ends_after_the_running_trials(
    study: Study, by_two: End
) -> None:
    spec = study(TEXT)

    def to_all() -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    heard = Listener(to_all, 8)
    assert run(spec, stop=Stopper(), heard=heard, workers=2) is None
    found = end_of(open_record(spec.storage, spec.name))
    assert 8 <= len(found.trials) <= 9
    assert_settled(found, by_two)
    assert run(spec, workers=2) is not None
    assert_same(spec.storage, by_two)

"""Worker processes: calls, errors, deaths, and who ends with whom."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from merge_core.errors import MergeError
from search.workers.processes import Processes
from search.workers.protocol import MOST_DEATHS, WorkerDiedError
from tests.search.workers.fakes import Fake

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    workers = Processes(2, lambda number: Fake(environment=(("MINE", str(number)),)))  # type: ignore[arg-type,return-value]
    yield workers
    workers.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def gone(pid: int, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.slow
def test_calls_are_answered_by_both_and_their_time_is_counted(two: Processes) -> None:
    before = two.busy
    answers = [two.call("double", x, 0.1) for x in range(6)]
    assert [answer.result() for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert 0.6 <= two.busy - before < 6
    answers = [two.call("variable", "MINE") for _ in range(8)]
    assert {answer.result() for answer in answers} <= {"0", "1"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_said_to_all_processes_is_the_coordinators_to_decide(number: int) -> None:
    others = {*multiprocessing.active_children()}
    workers = Processes(1, lambda _: Fake())  # type: ignore[arg-type,return-value]
    try:
        first = workers.call("pid")
        until = time.monotonic() + 30
        while not (new := {*multiprocessing.active_children()} - others):
            assert time.monotonic() < until
            time.sleep(0.01)
        (child,) = new
        os.kill(child.pid or 0, number)  # while it starts
        assert first.result() == child.pid
        busy = workers.call("double", 4, 0.5)
        time.sleep(0.2)
        os.kill(child.pid or 0, number)
        assert busy.result() == 8
        assert workers.call("pid").result() == child.pid
    finally:
        workers.close()
    assert gone(child.pid or 0)


@pytest.mark.slow
def test_what_a_method_raises_is_raised_here_with_its_traceback(two: Processes) -> None:
    with pytest.raises(ZeroDivisionError, match="by zero") as raised:
        two.call("wrong").result()
    assert "in wrong" in str(raised.value.__cause__)
    with pytest.raises(MergeError, match="left right"):
        two.call("odd").result()
    assert two.call("double", 4).result() == 8


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_call_done_again(
    two: Processes, tmp_path: Path
) -> None:
    assert two.call("die_once", tmp_path / "been").result() == "alive"


@pytest.mark.slow
def test_a_call_that_kills_every_worker_is_given_up_and_the_others_go_on(two: Processes) -> None:
    others = [two.call("double", x) for x in range(3)]
    with pytest.raises(
        WorkerDiedError, match=f"{MOST_DEATHS} workers .*at the same job: by SIGKILL"
    ):
        two.call("die").result()
    assert [other.result() for other in others] == [0, 2, 4]
    assert two.call("double", 1).result() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "error"),
    [("raises", "no such device"), ("dies", "while they opened the study: with exit code 3")],
)
def test_a_study_that_cannot_be_opened_is_every_calls_error(broken: str, error: str) -> None:
    workers = Processes(1, lambda _: Fake(broken))  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(MergeError, match=error):
            workers.call("double", 1).result()
    finally:
        workers.close()


@pytest.mark.slow
def test_closing_ends_a_process_that_is_busy() -> None:
    workers = Processes(1, lambda _: Fake())  # type: ignore[arg-type,return-value]
    pid = workers.call("pid").result()
    busy = workers.call("double", 1, 60.0)
    workers.close()
    assert gone(pid)
    assert not busy.done()


PARENT = """
import time
from search.workers.processes import Processes
from tests.search.workers.fakes import Fake
if __name__ == "__main__":
    workers = Processes(1, lambda _: Fake())
    print(workers.call("pid").result(), flush=True)
    workers.call("double", 1, 60.0)
    time.sleep(60)
"""


@pytest.mark.slow
def test_workers_end_with_a_coordinator_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script]
    with subprocess.Popen(command, env=where, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGINT)  # as a terminal does to all: only the coordinator decides
        assert is_running(pid)
        parent.kill()
    assert gone(pid)

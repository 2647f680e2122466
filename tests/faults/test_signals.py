"""Whoever asks a run to end, and when: what is settled stays, and the next run goes on there."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.storage.open import open_record
from search.views.stopping import Stopper
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, Toy, run
from tests.search.real import QUICKSTART, write_study

Study = Callable[..., StudySpec]
MOMENTS = [
    *(("search", 1, signal.SIGINT), ("search", 8, signal.SIGTERM), ("search", 17, signal.SIGHUP)),
    *(("select", 1, signal.SIGTERM), ("select", 3, signal.SIGHUP)),
    *(("report", 1, signal.SIGHUP), ("report", 3, signal.SIGINT)),
    *(("samples", 1, signal.SIGTERM), ("samples", 6, signal.SIGINT)),
    ("samples", 7, signal.SIGHUP),
]


def raising(at: str, count: int, *numbers: int) -> Callable[[str], None]:
    """Return what sends signals to this process when a pool is scored the ``count``-th time."""
    left = iter(range(count - 1, -1, -1))

    def before(pool: str) -> None:
        if pool == at and next(left, -1) == 0:
            for number in numbers:
                signal.raise_signal(number)

    return before


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("at", "count", "number"), MOMENTS)
def test_a_run_that_is_asked_to_end_ends_after_its_candidate_and_the_next_goes_on(
    study: Study, unbroken: End, at: str, count: int, number: int
) -> None:
    spec = study(TEXT)
    first, second = Toy(spec, raising(at, count, number)), Toy(spec)
    ended = run(spec, first, Stopper())
    assert (ended is not None) == ((at, count) == ("samples", 7)), "nothing comes after these"
    found = end_of(open_record(spec.storage))
    assert_settled(found, unbroken)
    scored = sum(at in trial["measured"] for trial in found.trials)
    assert at == "samples" or scored == count, "its candidate is kept"
    assert run(spec, second) is not None
    assert not {*first.scored} & {*second.scored}, "nothing is scored twice"
    assert_same(spec.storage, unbroken)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_time_ends_at_once_and_loses_what_was_in_flight_alone(
    study: Study, unbroken: End, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(TEXT)
    monkeypatch.setattr("search.views.stopping.ECHO", -1)
    with pytest.raises(KeyboardInterrupt):
        run(spec, Toy(spec, raising("search", 8, number, number)), Stopper())
    assert len(end_of(open_record(spec.storage)).trials) == 7
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM),  # `timeout`: to the process and to its group
        (signal.SIGHUP, signal.SIGHUP),  # a closed terminal: the kernel, and the shell
        (signal.SIGTERM, signal.SIGHUP),  # a session that ends
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGINT, signal.SIGHUP),
    ],
)
def test_what_one_stop_says_twice_is_heard_once(
    study: Study, unbroken: End, numbers: tuple[int, ...]
) -> None:
    spec = study(TEXT)
    assert run(spec, Toy(spec, raising("search", 8, *numbers)), Stopper()) is None
    assert len(end_of(open_record(spec.storage)).trials) == 8
    assert run(spec) is not None
    assert_same(spec.storage, unbroken)


@pytest.mark.usefixtures("signals")
def test_a_run_that_ignores_hangups_goes_on(study: Study, unbroken: End) -> None:
    spec = study(TEXT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert run(spec, Toy(spec, raising("search", 8, signal.SIGHUP)), Stopper()) is not None
    assert_same(spec.storage, unbroken)


COMMAND = [sys.executable, "-W", "ignore", "-m", "mergetune", "run"]


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A real study that nobody waits for."""
    return write_study(tmp_path / "small", trials=500)


def check_stopped(study: Path) -> None:
    """Say that what is settled is whole, and that nobody holds the study."""
    _, record = open_study(str(study))
    assert 1 <= len(end_of(record).trials) < 500
    with record.writing():
        pass


@pytest.mark.slow
def test_sigterm_ends_a_real_run_in_order_under_timeout_and_nohup(long: Path) -> None:
    """Both signals go through `timeout`, which sends each to the run and to its group."""
    command = ["timeout", "600", "nohup", *COMMAND, str(long)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("trial "))
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 1
    assert rest.count("told to end: stopping after this trial") == 1
    assert "stopped; run it again to go on" in rest
    assert "terminal" not in rest
    check_stopped(long)


@pytest.mark.slow
@pytest.mark.parametrize("piped", [False, True])
def test_a_real_terminal_that_is_closed_ends_a_run_in_order(long: Path, piped: bool) -> None:
    """What is printed goes to it, or to a program that ends with it."""
    words = [*COMMAND, str(long)]
    if piped:
        words = ["bash", "-c", f'{shlex.join(words)} 2>&1 | cat; exit "${{PIPESTATUS[0]}}"']
    with warnings.catch_warnings():  # of threads, since 3.12: the copy only starts a program
        warnings.simplefilter("ignore", DeprecationWarning)
        process, terminal = pty.fork()
    if process == 0:
        os.execvp(words[0], words)
    said = b""
    while not re.search(rb"\d+ of 5\d\d", said):
        said += os.read(terminal, 65536)
    os.close(terminal)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert ended == (-signal.SIGHUP if piped else 1)
    until = time.monotonic() + 30
    while (held := _held(long)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not held, "the run has ended"
    check_stopped(long)


def _held(study: Path) -> bool:
    lock = FileLock(study.parent / "results" / ".writer.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@pytest.mark.slow
def test_sigterm_during_an_export_leaves_nothing_half(tmp_path: Path) -> None:
    """A command that has no trials ends at once."""
    code = """
import signal, sys
from merge_core import atomic_write
from search.cli import main
whole = atomic_write._synced_all
def told(folder):
    assert any(folder.iterdir())
    signal.raise_signal(signal.SIGTERM)
    whole(folder)
atomic_write._synced_all = told
main()
"""
    recipe = tmp_path / "r.yaml"
    model = QUICKSTART / "models" / "add"
    recipe.write_text(
        f"merge_method: linear\nmodels: [{{model: {model}, parameters: {{weight: 1}}}}]\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, "merge", recipe, tmp_path / "out"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (
        130,
        ["mergetune: stopped at once; what is settled is stored"],
    )
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]

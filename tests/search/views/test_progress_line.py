from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from merge_core.recipe.schema import Recipe
from search.trial.trial import Measurement, Trial
from search.views import progress_line
from search.views.progress_line import ProgressLine, Stopper

CLEAR = "\x1b[2K"  # what a terminal does to a line that is rewritten


def trial(number: int, value: float | None = 0.5, took: float = 0.1, **facts: Any) -> Trial:
    state = "failed" if value is None else "complete"
    scores: dict[str, list[float]] = {} if value is None else {"task": [value, value]}
    recipe, measured = Recipe("linear", ()), {"search": Measurement(scores, {"model": took})}
    return Trial(number, state, recipe, measured=measured, value=value, **facts)  # type: ignore[arg-type]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written where no line can be rewritten."""
    return use(monkeypatch, terminal=False)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    return use(monkeypatch, terminal=True)


def use(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    file, own = io.StringIO(), progress_line.ERR
    console = Console(file=file, force_terminal=terminal, width=60, markup=False, emoji=False)
    assert (own._markup, own._emoji, own.stderr) == (False, False, True)
    monkeypatch.setattr(progress_line, "ERR", console)
    return file


def test_first_trial_is_shown_at_once_though_a_notice_came_before_it(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.notice("parents: mapped")
        progress.begin(9, [])
        progress.settled(trial(0))
        progress.settled(trial(1))  # too early for another line
    first, second = said.getvalue().splitlines()
    assert first == "parents: mapped"
    assert second.startswith("trial 1 of 9  best search score 0.5000 (trial 0)  2 items scored  0m")


def test_last_trial_and_failures_and_notices_are_shown_however_early(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.begin(4, [trial(0, 0.25)])
        for one in (trial(1), trial(2, None, error="Traceback\nValueError: [bad]"), trial(3)):
            progress.settled(one)
        progress.notice("all done")
    lines = said.getvalue().splitlines()
    assert lines[0] == "resuming: 1 of 4 trials are stored"
    assert [line.partition("  ")[0] for line in lines[1:]] == [
        "trial 2 of 4", "trial 2 failed: Traceback", "trial 4 of 4", "all done",
    ]  # fmt: skip


def test_best_score_of_0_is_better_than_one_below(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.begin(2, [])
        progress.settled(trial(0, 0.0))
        progress.settled(trial(1, -5.0))
    assert said.getvalue().splitlines()[-1].startswith("trial 2 of 2  best search score 0.0000 (t")


def test_time_left_is_that_of_recent_trials_also_of_stored_ones(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.begin(100, [trial(i, took=30.0) for i in range(60)])
        progress.settled(trial(60, took=45.0))
    assert said.getvalue().splitlines()[-1].endswith("122 items scored  19m30s left")


def test_time_left_is_no_more_than_the_hours_leave(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.begin(100, [trial(i, took=30.0) for i in range(60)], hours=0.6)
        progress.settled(trial(60, took=60.0))
    assert said.getvalue().splitlines()[-1].endswith("5m00s left")


def test_a_stage_says_its_time_left_where_that_is_known(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.stage("select pool: candidate 2 of 9", 3725.0)
    assert said.getvalue() == "select pool: candidate 2 of 9  1h02m left\n"


def test_scores_that_were_taken_over_are_no_items_scored(said: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.begin(2, [])
        progress.settled(trial(0))
        progress.settled(trial(1, same_as=0))
    assert "2 items scored" in said.getvalue().splitlines()[-1]


def test_terminal_has_one_line_that_is_rewritten_and_what_stays_above_it(
    shown: io.StringIO,
) -> None:
    with ProgressLine() as progress:
        progress.stage("opening models and tasks")
        progress.notice("parents: mapped")
        progress.begin(3, [])
        progress.settled(trial(0))
        progress.settled(trial(1))
        assert "trial 2 of 3" in shown.getvalue().rpartition(CLEAR)[2]
    assert shown.getvalue().endswith(CLEAR), "the line is gone in the end"
    assert [line for line in screen(shown.getvalue()) if line] == ["parents: mapped"]


def test_line_that_is_too_long_for_a_terminal_is_cut(shown: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.stage("x" * 200)
        assert "x" * 59 + "…" in shown.getvalue()
        assert "x" * 61 not in shown.getvalue()


def test_error_leaves_a_terminal_with_its_cursor(shown: io.StringIO) -> None:
    with contextlib.suppress(ValueError), ProgressLine() as progress:
        progress.stage("working")
        raise ValueError
    assert shown.getvalue().count("\x1b[?25l") == shown.getvalue().count("\x1b[?25h") == 1


@pytest.fixture
def interrupts() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_first_interrupt_asks_to_stop_and_the_second_stops_at_once(said: io.StringIO) -> None:
    stop = Stopper()
    assert not stop()
    signal.raise_signal(signal.SIGINT)
    assert stop()
    assert said.getvalue() == "stopping after this trial; Ctrl-C again stops at once\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after ``text``: moves up, back and deletions."""
    lines, at = [""], 0
    for part in text.replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\x1b["):
        if part.startswith("2K"):
            lines[at], part = "", part[2:]
        elif part.startswith("1A"):
            at, part = max(at - 1, 0), part[2:]
        for i, line in enumerate(part.replace("\r", "").split("\n")):
            at += i > 0
            lines += [""] * (at + 1 - len(lines))
            lines[at] += line
    return lines

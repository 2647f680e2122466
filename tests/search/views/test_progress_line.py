from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import warnings
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from merge_core.recipe.schema import Recipe
from search.trial.trial import Measurement, Trial
from search.views import progress_line
from search.views.live_panel import LINES, Standing, panel
from search.views.progress_line import ProgressLine


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


def test_terminal_has_a_panel_that_is_rewritten_and_what_stays_above_it(
    shown: io.StringIO,
) -> None:
    with ProgressLine() as progress:
        progress.stage("candidates are merged")
        progress.notice("parents: mapped")
        progress.begin(3, [])
        progress.phase("baselines")
        progress.settled(trial(0, baseline="parent:one", stderr=0.1))
        progress.settled(trial(1, 0.75, stderr=0.05))
        now = [line for line in screen(shown.getvalue()) if line]
        assert now[0] == "parents: mapped"
        assert now[1].startswith("╭─ baselines ─")
        assert [line.strip("│ ").partition("  ")[0] for line in now[2:8]] == [
            "best so far", "best parent", "uniform merge", "trials", "items", "time",
        ]  # fmt: skip
        assert "0.7500 (95 %: 0.6520 to 0.8480)  trial 1" in now[2]
        assert "0.5000 (95 %: 0.3040" in now[3]
        assert "none yet" in now[4]
        assert "2 of 3: 2 complete" in now[5]
        assert {len(line) for line in now[1:]} == {60}
    assert [line for line in screen(shown.getvalue()) if line] == ["parents: mapped"]


def test_line_that_is_too_long_for_a_terminal_is_cut(shown: io.StringIO) -> None:
    with ProgressLine() as progress:
        progress.stage("x" * 200)
        rows = [line for line in screen(shown.getvalue()) if line]
    assert len(rows) == LINES
    assert rows[0].endswith("x…─╮")


@pytest.mark.parametrize("width", [8, 20, 60, 96, 300])
def test_panel_has_one_width_and_one_height_on_every_terminal(width: int) -> None:
    now = Standing(total=9, trials=[trial(0, stderr=0.1, baseline="parent:" + "名" * 90)])
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    rows = console.render_lines(panel(now, width), pad=False)
    assert len(rows) == LINES
    assert max(sum(part.cell_length for part in row) for row in rows) <= min(width, 96)


def test_names_cannot_break_the_panel(shown: io.StringIO) -> None:
    nasty = "[bold]a\x1b[2J\r\n\t\u202eb:cat:"
    with ProgressLine() as progress:
        progress.begin(3, [])
        progress.phase("baselines")
        progress.settled(trial(0, baseline=f"parent:{nasty}"))
        progress.stage(nasty)
        text = shown.getvalue()
    rows = [line for line in screen(text) if line]
    assert {len(line) for line in rows} == {60}
    assert len(rows) == LINES
    assert "[bold]a\\x1b[2J\\x0d\\n \\u202eb:cat:" in rows[0]
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_error_leaves_a_terminal_with_its_cursor(shown: io.StringIO) -> None:
    with contextlib.suppress(ValueError), ProgressLine() as progress:
        progress.stage("working")
        raise ValueError
    text = shown.getvalue()
    assert text.count("\x1b[?25l") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_items_that_stopped_candidates_did_not_see_are_saved() -> None:
    whole, early = trial(0), trial(1)
    early = replace(early, state="stopped", value=0.9, measured={
        "search": Measurement({"task": [1.0]}, {})})  # fmt: skip
    now = Standing(total=3, trials=[whole, early, replace(early, number=2, same_as=1)])
    assert (now.items, now.saved) == (3, 1)
    assert now.best is whole, "an estimate is nobody's search score"
    text = plain(panel(now, 80))
    assert "3 of 3: 1 complete, 2 stopped" in text
    assert "3 scored, 1 saved by racing" in text


def test_what_is_going_on_after_the_search_is_named_once() -> None:
    now = Standing(phase="select", doing="select pool: candidate 2 of 9", left=61.0, seconds=5.0)
    text = plain(panel(now, 80))
    assert "─ select pool: candidate 2 of 9 ─" in text
    assert "0m05s, about 1m01s left" in text


def test_time_left_is_counted_down_and_is_of_its_own_phase(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: clock[0])
    with ProgressLine() as progress:
        progress.begin(3, [])
        progress.phase("drawing")
        progress.settled(trial(0, took=30.0))
        clock[0] += 12
        assert "0m12s, about 0m48s left" in plain(progress._panel())
        progress.stage("computed once: nothing")
        assert "about 0m48s left" in plain(progress._panel()), "the search goes on"
        progress.phase("select")
        assert "left" not in plain(progress._panel())
        progress.stage("select pool: candidate 1 of 2", 7.0)
        clock[0] += 2
        assert "0m14s, about 0m05s left" in plain(progress._panel())


def plain(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=100, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after ``text``: moves up, back and deletions."""
    lines, at = [""], 0
    for part in re.sub(r"\x1b\[(\?25[lh]|[0-9;]*m)", "", text).split("\x1b["):
        if part.startswith("2K"):
            lines[at], part = "", part[2:]
        elif part.startswith("1A"):
            at, part = max(at - 1, 0), part[2:]
        for i, line in enumerate(part.replace("\r", "").split("\n")):
            at += i > 0
            lines += [""] * (at + 1 - len(lines))
            lines[at] += line
    return lines


CHILD = """
import sys, time
from search.views.progress_line import ProgressLine
from search.views.stopping import Stopper
from search.views.terminal import printable_output
from search.trial.trial import Measurement, Trial
from merge_core.recipe.schema import Recipe

with printable_output(), ProgressLine() as progress:
    stop = Stopper()
    print("of another library", file=sys.stderr)
    progress.notice("[bold]\\x1b[2J parents")
    progress.begin(99, [])
    progress.phase("baselines")
    for i in range(99):
        measured = {"search": Measurement({"t": [1.0]}, {"model": 0.2})}
        one = Trial(i, "complete", Recipe("linear", ()), baseline="a\\x1b[1000D" * 40, value=0.5,
                    stderr=0.1, measured=measured)
        progress.settled(one)
        time.sleep(0.3)
        if stop():
            progress.notice("ready for the second")
            time.sleep(60)
"""


class Terminal:
    """A real one, as the kernel makes it: what a program writes to it, and what it is sent."""

    def __init__(self, code: str) -> None:
        self.text = ""
        with warnings.catch_warnings():  # of threads, since 3.12: the copy only starts code
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process, self.handle = pty.fork()
        if self.process == 0:
            size = ("COLUMNS", "LINES")  # pytest sets them
            told = {key: value for key, value in os.environ.items() if key not in size}
            os.execve(sys.executable, [sys.executable, "-c", code], {**told, "TERM": "xterm"})
        self.resize(80)
        self.settings = termios.tcgetattr(self.handle)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))

    def read_until(self, words: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while words not in self.text and time.monotonic() < end:
            self.read(0.1)
        assert words in self.text

    def read(self, seconds: float) -> bool:
        """Take what is written within some seconds; whether the program has closed it."""
        if not select.select([self.handle], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.handle, 65536)
        except OSError:  # it has ended
            return True
        self.text += data.decode(errors="replace")
        return not data

    def end(self) -> int:
        while not self.read(1.0):
            pass
        after = termios.tcgetattr(self.handle)
        assert after == self.settings, "the terminal is as it was"
        os.close(self.handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.mark.slow
def test_a_real_terminal_is_drawn_on_resized_interrupted_and_left_sane() -> None:
    terminal = Terminal(CHILD)
    terminal.read_until("1 of 99: 1 complete")
    above = [line for line in screen(terminal.text) if line and line[0] not in "╭│╰"]
    assert above == ["of another library", "[bold]\\x1b[2J parents"]
    assert "\x1b[2J" not in terminal.text
    assert "\x1b[1000D" not in terminal.text
    wide = [line for line in screen(terminal.text) if "╭" in line]
    assert {len(line) for line in wide} == {80}
    terminal.resize(40)
    drawn = len(terminal.text)
    terminal.read_until("╭─ baselines " + "─" * 26 + "╮")
    assert terminal.text.count("\x1b[1A", drawn) >= 2 * LINES - 1, "wrapped lines are erased, too"
    os.write(terminal.handle, b"\x03")
    terminal.read_until("stopping after this trial; Ctrl-C again stops at once")
    terminal.read_until("ready for the second")
    os.write(terminal.handle, b"\x03")
    assert terminal.end() != 0, "stopped at once"
    assert "KeyboardInterrupt" in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert "╭" not in "".join(screen(terminal.text)[-12:]), "the panel is gone"


def test_output_that_is_no_terminal_gets_plain_lines() -> None:
    short = CHILD.replace("range(99)", "range(2)").replace("sleep(0.3)", "sleep(0)")
    run = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, check=True)
    other, first, second = run.stderr.splitlines()
    assert other == "of another library"
    assert first == "[bold]\\x1b[2J parents"
    assert second.startswith(
        "trial 1 of 99  best search score 0.5000 (trial 0)  1 items scored  0m"
    )

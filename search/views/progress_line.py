"""How a search goes, on stderr; results go to stdout."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace

from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.segment import ControlType

from search.trial.budget import seconds_left
from search.trial.progress import Phase
from search.trial.trial import Trial
from search.views.live_panel import LINES, WORDS, Standing, panel
from search.views.terminal import ERR, duration

PAUSE = 10  # seconds between two lines where none can be rewritten
PER_SECOND = 2  # times that the panel is drawn anew
SEARCHING: tuple[Phase, ...] = ("baselines", "gradient", "drawing")


class ProgressLine:
    """How the search goes: a panel on a terminal, drawn anew twice a second; else a line at times.

    A context manager. What stays is printed above the panel, which is gone in the end.
    """

    def __init__(self) -> None:
        self._standing = Standing()
        self._hours: float | None = None
        self._workers = 1
        self._began = self._left_at = time.monotonic()
        self._last = -math.inf
        self._drawn = 0  # columns of the panel that is on the terminal, 0: none
        self._live = Live(
            console=ERR,
            refresh_per_second=PER_SECOND,
            transient=True,
            redirect_stdout=False,
            get_renderable=self._panel,
        )

    def __enter__(self) -> ProgressLine:
        if ERR.is_interactive:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._live.stop()
        finally:  # whatever interrupts that, a shell gets its cursor back
            if ERR.is_interactive:
                ERR.show_cursor()

    def begin(
        self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
    ) -> None:
        """Start counting from the trials that are stored."""
        now, self._hours, self._workers = self._standing, hours, workers
        now.total = total
        now.trials += settled
        if settled:
            self.notice(f"resuming: {len(settled)} of {total} trials are stored")

    def settled(self, trial: Trial) -> None:
        """Count a trial and show how it stands."""
        now = self._standing
        now.trials.append(trial)
        now.doing = ""
        missing = now.total - len(now.trials)
        self._expect(seconds_left(now.trials, missing, self._hours, self._workers))
        if trial.state == "failed":
            self.notice(f"trial {trial.number} failed: {trial.reason}")
        if not missing:
            self.notice(self._line())
        else:
            self._say(self._line())

    def phase(self, name: Phase) -> None:
        """Show which part of the run goes on."""
        now = self._standing
        if name != now.phase:
            now.phase, now.doing = name, ""
            if name not in SEARCHING:
                self._expect(None)
        if name in ("opening", "writing"):
            self._say(WORDS[name])

    def stage(self, text: str, left: float | None = None) -> None:
        """Show what goes on now."""
        now = self._standing
        now.doing = text
        if now.phase not in SEARCHING:
            self._expect(left)
        self._say(text if left is None else f"{text}  {duration(left)} left")

    def notice(self, text: str) -> None:
        """Show a line that stays."""
        ERR.print(text, soft_wrap=True)

    def _say(self, text: str) -> None:
        """Print a line now and then where there is no panel."""
        if self._live.is_started:
            self._live.refresh()
        elif time.monotonic() - self._last > PAUSE:
            self._last = time.monotonic()  # what stays does not hold progress back
            ERR.print(text, soft_wrap=True)

    def _expect(self, left: float | None) -> None:
        self._standing.left, self._left_at = left, time.monotonic()

    def _panel(self) -> Panel:
        now, clock = self._standing, time.monotonic()
        passed = clock - self._left_at
        left = None if now.left is None else max(0.0, now.left - passed)
        width = ERR.size.width
        made = panel(replace(now, seconds=clock - self._began, left=left), width)
        self._clear_wrapped(width, made.width or width)
        return made

    def _clear_wrapped(self, width: int, drawn: int) -> None:
        """Erase what a terminal that became narrower made of the panel: each line is several."""
        before, self._drawn = self._drawn, drawn
        if before > width and ERR.is_interactive:
            extra = LINES * (math.ceil(before / width) - 1)
            up = Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            ERR.control(*[up] * extra)

    def _line(self) -> str:
        now = self._standing
        best = now.best
        found = "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"
        saved = f", {now.saved} saved by racing" if now.saved else ""
        return (
            f"trial {len(now.trials)} of {now.total}  best search score {found}  "
            f"{now.items} items scored{saved}  {duration(now.left or 0.0)} left"
        )


def hush_libraries() -> None:
    """Keep transformers and datasets from writing progress bars and notes between our lines."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    bars = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")
    for name, value in {**quiet, **dict.fromkeys(bars, "1")}.items():
        os.environ.setdefault(name, value)

"""How a search goes, on stderr; results go to stdout."""

from __future__ import annotations

import math
import os
import signal
import time
from types import FrameType

from rich.live import Live
from rich.text import Text

from search.trial.budget import seconds_left
from search.trial.trial import Trial
from search.views.terminal import ERR, duration

PAUSE = 10  # seconds between two lines where none can be rewritten


class Stopper:
    """The first Ctrl-C ends after the running trial; the second ends at once."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGINT, self._ask)

    def __call__(self) -> bool:
        """Return whether the user wants to stop."""
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        ERR.print("stopping after this trial; Ctrl-C again stops at once")


class ProgressLine:
    """One line that says how the search goes: rewritten on a terminal, else one now and then.

    A context manager. What stays is printed above the line, which is gone in the end.
    """

    def __init__(self) -> None:
        self._live = Live(console=ERR, auto_refresh=False, transient=True, redirect_stdout=False)
        self._total, self._items = 0, 0
        self._best: Trial | None = None
        self._trials: list[Trial] = []
        self._hours: float | None = None
        self._last = -math.inf

    def __enter__(self) -> ProgressLine:
        if ERR.is_interactive:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def begin(self, total: int, settled: list[Trial], hours: float | None = None) -> None:
        """Start counting from the trials that are stored."""
        self._total, self._hours = total, hours
        for trial in settled:
            self._take(trial)
        if settled:
            self.notice(f"resuming: {len(settled)} of {total} trials are stored")

    def settled(self, trial: Trial) -> None:
        """Count a trial and show the line."""
        self._take(trial)
        if trial.state == "failed":
            self.notice(f"trial {trial.number} failed: {trial.reason}")
        show = self.notice if len(self._trials) == self._total else self.stage
        show(self._line())

    def stage(self, text: str, left: float | None = None) -> None:
        """Show what goes on now."""
        text = text if left is None else f"{text}  {duration(left)} left"
        if self._live.is_started:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() - self._last > PAUSE:
            self._last = time.monotonic()  # what stays does not hold progress back
            ERR.print(text, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Show a line that stays."""
        self._live.update("")
        ERR.print(text, soft_wrap=True)

    def _take(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._items += trial.cost
        best = None if self._best is None else self._best.value
        if trial.value is not None and (best is None or trial.value > best):
            self._best = trial

    def _line(self) -> str:
        best = self._best
        found = "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"
        done = len(self._trials)
        left = duration(seconds_left(self._trials, self._total - done, self._hours))
        return (
            f"trial {done} of {self._total}  best search score {found}  "
            f"{self._items} items scored  {left} left"
        )


def hush_libraries() -> None:
    """Keep transformers and datasets from writing progress bars and notes between our lines."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    bars = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")
    for name, value in {**quiet, **dict.fromkeys(bars, "1")}.items():
        os.environ.setdefault(name, value)

"""What a terminal shows while a search runs: how far it is, how good, what it costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from merge_core.printable import printable
from search.scoring.intervals import Z95
from search.space.starting_points import PARENT, UNIFORM
from search.trial.progress import Phase
from search.trial.trial import Trial
from search.views.terminal import duration

WIDEST = 96  # columns
LINES = 8  # of a panel
WORDS: dict[Phase, str] = {
    "opening": "opening models and tasks",
    "baselines": "baselines",
    "gradient": "steps by gradient",
    "drawing": "drawn candidates",
    "select": "select pool",
    "report": "report pool",
    "samples": "sample answers",
    "writing": "writing results",
}


@dataclass
class Standing:
    """How a run stands.

    Args:
        total: Trials that are planned, baselines included.
        trials: Those that are settled.
        phase: Which part of the run goes on.
        doing: What goes on in it, in words, if that is known; after the search with its name.
        seconds: How long it has gone on.
        left: How many seconds it still takes, if that is known.
    """

    total: int = 0
    trials: list[Trial] = field(default_factory=list)
    phase: Phase = "opening"
    doing: str = ""
    seconds: float = 0.0
    left: float | None = None

    @property
    def best(self) -> Trial | None:
        """The trial with the best search score; one that was stopped has none of its own."""
        return _best([t for t in self.trials if t.state == "complete"])

    @property
    def best_parent(self) -> Trial | None:
        """The parent with the best search score."""
        return _best([t for t in self.trials if (t.baseline or "").startswith(PARENT)])

    @property
    def uniform(self) -> Trial | None:
        """The uniform merge."""
        return _best([t for t in self.trials if t.baseline == UNIFORM])

    @property
    def items(self) -> int:
        """Items scored, see ``Trial.cost``."""
        return sum(trial.cost for trial in self.trials)

    @property
    def saved(self) -> int:
        """Items that stopped candidates did not see."""
        whole = max((t.search.items for t in self.trials if t.state == "complete"), default=0)
        stopped = [t for t in self.trials if t.state == "stopped" and t.same_as is None]
        return sum(max(0, whole - t.search.items) for t in stopped)


def _best(trials: Sequence[Trial]) -> Trial | None:
    known = [t for t in trials if t.value is not None]
    return max(known, key=lambda t: (t.value, -t.number), default=None)


def panel(now: Standing, width: int) -> Panel:
    """Return it for a terminal of so many columns; every row is one line, cut where it must be."""
    rows = [
        ("best so far", _scored(now.best)),
        ("best parent", _scored(now.best_parent)),
        ("uniform merge", _scored(now.uniform)),
        ("trials", _counted(now)),
        ("items", _items(now)),
        ("time", _times(now)),
    ]
    room = max(len(label) for label, _ in rows) + 2
    lines = [
        Text.assemble((label.ljust(room), "dim"), text, no_wrap=True, overflow="ellipsis")
        for label, text in rows
    ]
    phase = WORDS[now.phase]
    doing = (
        now.doing if now.doing.startswith(phase) else ": ".join(filter(None, (phase, now.doing)))
    )
    title = Text(one_line(doing), no_wrap=True, overflow="ellipsis")
    return Panel(Group(*lines), title=title, title_align="left", width=max(1, min(width, WIDEST)))


def one_line(text: str) -> str:
    """Return a text as one line without control characters, so that columns can be counted."""
    return printable(text).replace("\n", "\\n").replace("\t", " ")


def _scored(trial: Trial | None) -> str:
    if trial is None or trial.value is None:
        return "none yet"
    value, interval = f"{trial.value:.4f}", ""
    if trial.stderr is not None and math.isfinite(trial.stderr):
        low, high = (trial.value + z * trial.stderr for z in (-Z95, Z95))
        interval = f" (95 %: {low:.4f} to {high:.4f})"
    name = f", {one_line(trial.baseline)}" if trial.baseline else ""
    return f"{value}{interval}  trial {trial.number}{name}"


def _counted(now: Standing) -> str:
    states: Counter[str] = Counter(trial.state for trial in now.trials)
    names = ("complete", "stopped", "failed", "unscored")
    kinds = ", ".join(f"{states[name]} {name}" for name in names if states[name])
    done = f"{len(now.trials)} of {max(now.total, len(now.trials))}"
    return f"{done}: {kinds}" if kinds else done


def _items(now: Standing) -> str:
    saved = f", {now.saved:,} saved by racing" if now.saved else ""
    return f"{now.items:,} scored{saved}"


def _times(now: Standing) -> str:
    left = "" if now.left is None else f", about {duration(now.left)} left"
    return f"{duration(now.seconds)}{left}"

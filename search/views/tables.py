"""Tables and progress for people; results go to stdout, progress to stderr."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from search.storage.study_record import Settled

OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
ERR = Console(stderr=True, highlight=False)


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
        ERR.print("\nstopping after this trial; Ctrl-C again stops at once")


class Live:
    """One line that says how the search goes: rewritten on a terminal, else one now and then."""

    def __init__(self) -> None:
        self._terminal = ERR.is_terminal
        self._total, self._done, self._items = 0, 0, 0
        self._best: Settled | None = None
        self._start, self._fresh, self._last = time.monotonic(), 0, -math.inf

    def begin(self, total: int, settled: list[Settled]) -> None:
        """Start counting from the trials that are stored."""
        self._total, self._done = total, len(settled)
        self._start = time.monotonic()
        for trial in settled:
            self._take(trial)
        if settled:
            ERR.print(f"resuming: {self._done} of {total} trials are stored")

    def settled(self, trial: Settled) -> None:
        """Count a trial and show the line."""
        self._done += 1
        self._fresh += 1
        self._take(trial)
        if trial.state == "failed":
            self._print(f"trial {trial.number} failed: {trial.reason}", keep=True)
        self._print(self._line(), keep=self._done == self._total)

    def stage(self, text: str) -> None:
        """Show what goes on after the search."""
        self._print(text, keep=False)

    def notice(self, text: str) -> None:
        """Show a line that stays."""
        self._print(text, keep=True)

    def _take(self, trial: Settled) -> None:
        self._items += trial.items if trial.same_as is None else 0
        if trial.value is not None and trial.value > (self._best_value() or -1e300):
            self._best = trial

    def _best_value(self) -> float | None:
        return None if self._best is None else self._best.value

    def _line(self) -> str:
        best = self._best
        found = "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"
        pace = (time.monotonic() - self._start) / max(self._fresh, 1)
        left = _duration(pace * (self._total - self._done))
        return (
            f"trial {self._done} of {self._total}  best search score {found}  "
            f"{self._items} items scored  {left} left"
        )

    def _print(self, text: str, keep: bool) -> None:
        if self._terminal:
            end = "\n" if keep else ""
            sys.stderr.write(f"\r\x1b[2K{text}{end}")
            sys.stderr.flush()
        elif keep or time.monotonic() - self._last > 10:
            if not keep:  # what stays does not hold progress back
                self._last = time.monotonic()
            ERR.print(text, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def hush_libraries() -> None:
    """Keep transformers and datasets from writing progress bars and notes between our lines."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


def report(summary: Mapping[str, Any]) -> None:
    """Print a finished study: every candidate on the report pool, and the winner's differences."""
    pools, winner = summary["pools"], summary["winner"]
    aggregate = summary["score"]["aggregate"].replace("_", " ").replace("apart", "mean")
    shown = _columns(summary)
    table = Table(title=f"{summary['study']}: scores on {pools['report']} report items")
    for name in ("candidate", "trial", aggregate, "95 % interval", *shown):
        table.add_column(name, justify="left" if name == "candidate" else "right")
    for row in summary["candidates"]:
        found = row["report"]
        cells = [f"{found[kind][name]['mean']:.3f}" for name, kind in shown.items()]
        style = "bold" if row["name"] == "winner" else None
        table.add_row(
            row["name"],
            str(row["trial"]),
            f"{found['mean']:.3f}",
            _interval(found),
            *cells,
            style=style,
        )
    OUT.print(table)
    names = {"best_parent": summary["best_parent"], "uniform": "uniform", "base": "base"}
    for key, name in names.items():
        if f"minus_{key}" in winner:
            found = winner[f"minus_{key}"]
            OUT.print(
                f"winner minus {name}: {found['estimate']:+.3f}, 95 % interval "
                f"[{found['low']:+.3f}, {found['high']:+.3f}], paired over {pools['report']} items",
                markup=False,
            )
    for notice in summary["notices"]:
        OUT.print(notice, markup=False)
    search, select = winner["search"]["mean"], winner["select"]["mean"]
    metrics = ", ".join(dict.fromkeys(winner["search"].get("steered_by", {}).values()))
    by = f" by {metrics}, another unit," if metrics else ""
    OUT.print(
        f"The winner scored {search:.3f}{by} on the {pools['search']} items that steered the "
        f"search and {select:.3f} on the {pools['select']} that chose it;\n"
        f"{winner['report']['mean']:.3f} on the report items is the number that holds.",
        markup=False,
    )


def _columns(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of the study's score, and whether each is a group or a task."""
    groups = summary["winner"]["report"].get("groups", {})
    names = [entry["name"] for entry in summary["score"]["entries"]]
    return {name: "groups" if name in groups else "tasks" for name in names}


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['low']:.3f} to {found['high']:.3f}"


def rows(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in cells:
        table.add_row(*row)
    OUT.print(table)

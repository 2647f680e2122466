"""A bar on a terminal while something long is computed whose size is known; elsewhere nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from search.views.terminal import PlainConsole


@contextmanager
def share_done(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what is to be told how much is done, and how much there is; None off a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with bar(PlainConsole(stderr=True), what) as progress:
        yield progress


@contextmanager
def bar(
    console: Console, what: str, *columns: ProgressColumn
) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be told so; it draws a bar, with ``columns`` between it and the time left.

    What is printed on stdout meanwhile goes there as it is.
    """
    shown = TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn()
    with Progress(*shown, console=console, transient=True, redirect_stdout=False) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, every: drawn.update(task, completed=done, total=every)

"""A bar on a terminal while something long is computed whose size is known; elsewhere nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from search.views.terminal import PlainConsole


@contextmanager
def share_done(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what is to be told how much is done, and how much there is; None off a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=PlainConsole(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, every: int) -> None:
            bar.update(task, completed=done, total=every)

        yield progress

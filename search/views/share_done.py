"""How something long goes whose size is known, on stderr: a bar, or a line at times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from search.views.terminal import ERR, duration

PAUSE = 10  # seconds between two lines where none can be rewritten


@contextmanager
def share_done(
    what: str, *, in_bytes: bool = False, quiet: bool = False
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what is to be told how much is done, and how much there is.

    What is printed on stdout meanwhile goes there as it is. ``quiet``: None, and nothing is shown.
    """
    if quiet:
        yield None
    elif not ERR.is_interactive:
        yield _lines(what, in_bytes)
    else:
        size = (DownloadColumn(),) if in_bytes else ()
        shown = TextColumn("{task.description}"), BarColumn(), *size, TimeRemainingColumn()
        with Progress(*shown, console=ERR, transient=True, redirect_stdout=False) as drawn:
            task = drawn.add_task(what, total=None)
            yield lambda done, every: drawn.update(task, completed=done, total=every)


def _lines(what: str, in_bytes: bool) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def say(done: int, every: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PAUSE or done == every:
            return
        last, left = now, (now - began) * (every - done) / done
        share = f"{done / 1e9:.2f} of {every / 1e9:.2f} GB" if in_bytes else f"{done} of {every}"
        ERR.print(f"{what}: {share}, {duration(left)} left", soft_wrap=True)

    return say

"""How the writing of a model folder goes, on stderr, and what it will come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import DownloadColumn

from merge_core.inspect.forecast import Forecast
from search.views.share_done import bar
from search.views.terminal import ERR, duration

PAUSE = 10  # seconds between two lines where none can be rewritten


@contextmanager
def written_bytes(*, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what is told bytes that are written and that will be: a bar, or a line at times.

    ``quiet``: None, and nothing is shown.
    """
    if quiet:
        yield None
    elif not ERR.is_interactive:
        yield _lines()
    else:
        with bar(ERR, "merging", DownloadColumn()) as progress:
            yield progress


def _lines() -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def say(done: int, every: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PAUSE or done == every:
            return
        last, left = now, (now - began) * (every - done) / done
        text = f"merged {done / 1e9:.2f} of {every / 1e9:.2f} GB  {duration(left)} left"
        ERR.print(text, soft_wrap=True)

    return say


def forecast(found: Forecast) -> None:
    """Print what a merge will come to."""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    print(f"{found.merge_method} of {', '.join(found.models)}; config of {found.config_from}")
    print(f"result     {found.parameters:,} parameters in {found.tensors} tensors, {found.dtype}")
    free = f"{found.free_bytes / 1e9:.1f} GB are free there"
    print(f"disk       {found.weights_bytes / 1e9:.2f} GB of weights in {files}; {free}")
    print(f"memory     about {found.memory_bytes / 1e9:.2f} GB at most")
    print("nothing is written")

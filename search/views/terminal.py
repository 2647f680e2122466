"""Text on its way to the terminal, whoever prints it: as ``merge_core.printable`` has it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from merge_core.errors import MergeWarning
from merge_core.printable import printable


class PlainConsole(Console):
    """Prints text as it is: names, reasons and messages are full of [brackets] and :colons:."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    @property
    def file(self) -> IO[str]:
        """The stream that is written to, behind all that stand before it."""
        found: Any = super().file  # a live display puts its own before ours
        while hasattr(found, "rich_proxied_file"):
            found = found.rich_proxied_file
        return cast("IO[str]", found)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what rich makes of something; its own control codes stay what they are."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(printable(part.text), part.style)


class _Printable:
    """A stream of the standard ones; rich's consoles find what is behind it by its attribute."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def printable_output() -> Iterator[None]:
    """Let everything that is printed, by whomever, go through ``printable``; warnings are lines."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Printable(stream) for stream in before)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("default", MergeWarning)
            yield
    finally:
        sys.stdout, sys.stderr = before


WIDTH = None if sys.stdout.isatty() else 140
OUT, ERR = PlainConsole(width=WIDTH), PlainConsole(stderr=True)


def duration(seconds: float) -> str:
    """Return a time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"

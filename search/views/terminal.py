"""Text on its way to the terminal: names and messages of others can neither steer it nor hide.

What they may hold (escape sequences, backspaces, marks that turn the direction of writing, halves
of surrogate pairs) is shown as ``\\x1b`` and the like.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from merge_core.errors import MergeWarning

_CONTROLS = {*range(32), *range(127, 160)} - {ord("\t"), ord("\n")}
_MARKS = {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_SHOWN = {code: f"\\x{code:02x}" for code in _CONTROLS}
_SHOWN |= {code: f"\\u{code:04x}" for code in (*_MARKS, *range(0xD800, 0xE000))}


def printable(text: str) -> str:
    """Return a text whose control characters, but for tabs and line ends, are written out."""
    return text.translate(_SHOWN)


class PlainConsole(Console):
    """Prints text as it is: names, reasons and messages are full of [brackets] and :colons:."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

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

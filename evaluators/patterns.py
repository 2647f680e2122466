"""Regular expressions of strangers: Python's ``re``, within bounds of time and memory.

``(a|aa)+$`` never ends on forty letters, and nothing stops ``re`` in its own process; so matches
are found in another (``merge_core.confined``). The functions have the names and arguments of those
of ``re`` that lm-eval calls, which is given this module in place of it.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from merge_core import confined
from merge_core.errors import ItemError

MOST = 10_000  # characters of an expression

escape = re.escape


class Pattern:
    """A compiled expression; see ``re.Pattern``.

    Each method raises ``ItemError`` where it takes too long, or too much memory, for a text.

    Args:
        pattern, flags: As for ``re.compile``.

    Raises:
        re.error: It is none, or a very long one.
    """

    def __init__(self, pattern: str, flags: int = 0) -> None:
        if len(pattern) > MOST:
            raise re.error(f"it has {len(pattern)} characters, at most {MOST}")
        try:
            self.groups = re.compile(pattern, flags).groups
        except (RecursionError, OverflowError) as error:
            raise re.error(f"it is nested too deep, or counts too far: {error}") from error
        self._asked = pattern, int(flags)

    def search(self, text: str) -> list[str | None] | None:
        """Return the first match and its groups, None where there is no match."""
        found: list[str | None] | None = self._ask("search", text)
        return found

    def findall(self, text: str) -> list[Any]:
        """Return all matches, as ``re.findall``."""
        found: list[Any] = self._ask("findall", text)
        return [tuple(x) for x in found] if self.groups > 1 else found

    def sub(self, repl: str, text: str, count: int = 0) -> str:
        """Replace matches, as ``re.sub``."""
        return str(self._ask("sub", text, repl, count))

    def _ask(self, what: str, text: str, *more: Any) -> Any:
        answer = confined.ask(what, *self._asked, text, *more)
        if "error" in answer:
            raise ItemError(
                f"the regular expression {self._asked[0][:80]!r} fails on {text[:40]!r}: "
                f"{answer['error']}; nested repetitions, as in (a+)+, may try without end"
            )
        return answer["result"]


@functools.lru_cache(1000)
def compile(pattern: str, flags: int = 0) -> Pattern:
    """Return a compiled expression; see ``Pattern``."""
    return Pattern(pattern, flags)


def findall(pattern: str, string: str, flags: int = 0) -> list[Any]:
    """See ``re.findall``."""
    return compile(pattern, flags).findall(string)


def sub(pattern: str, repl: str, string: str, count: int = 0, flags: int = 0) -> str:
    """See ``re.sub``."""
    return compile(pattern, flags).sub(repl, string, count)

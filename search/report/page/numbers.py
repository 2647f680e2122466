"""Numbers as people read them: few digits, a true minus, one form for each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

MINUS = "\N{MINUS SIGN}"
LARGE = 1e5  # from here on numbers are in thousands, millions, ...
LETTERS = {1e3: "k", 1e6: "M", 1e9: "G", 1e12: "T"}


def number(value: float | None, digits: int = 3) -> str:
    """Return a score: so many digits behind the point, fewer where the number is large."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if abs(value) >= LARGE:
        power = max(p for p in LETTERS if abs(value) >= p)
        return large(value, max(0, digits - int(math.log10(abs(value) / power))))
    value += 0.0  # no negative zero
    size = abs(value)
    behind = digits if size < 10 else max(0, digits - int(math.log10(size)))
    found = f"{value:.{behind}f}"
    if value and not float(found):
        found = f"{value:.2g}"
    return found.replace("-", MINUS)


def large(value: float, digits: int, size: float | None = None) -> str:
    """Return a number in thousands, millions and so on; ``size``: by whose size, if not its own."""
    powers = [p for p in LETTERS if (abs(value) if size is None else size) >= p]
    power = max(powers, default=1.0)
    return f"{value / power:.{digits}f}{LETTERS.get(power, '')}".replace("-", MINUS)


def signed(value: float) -> str:
    """Return a difference."""
    return number(value) if value < 0 else f"+{number(value)}"


def interval(low: float, high: float) -> str:
    """Return the ends of an interval; one without width is an exact number."""
    if low == high:
        return "exact"
    return f"{number(low)} to {number(high)}"


def knob(value: object) -> str:
    """Return the value of a knob."""
    return f"{value:.4g}".replace("-", MINUS) if isinstance(value, float) else str(value)


def count(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """Return a time."""
    if value < 100:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def percent(share: float) -> str:
    """Return a share."""
    return f"{100 * share:.0f} %"


def counted(count: int, what: str, several: str | None = None) -> str:
    """Return so many of something."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def listed(found: Mapping[str, object]) -> str:
    """Return names with their numbers, in words."""
    return ", ".join(f"{value} {name}" for name, value in found.items())

"""A number that knows how it changes with the drawn ones: derivatives forward, by the chain rule.

What a recipe gives a tensor is computed from drawn numbers by the units, the dialect's filters and
its interpolation. The same code computes the derivatives when it is given such numbers: each
operation on them keeps ``{name: d value / d drawn}`` beside the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Slopes = Mapping[str, float]


class Traced(float):
    """A float with its derivatives; the arithmetic that units and interpolation need.

    Args:
        value: The number.
        by: Name of a drawn number -> the derivative by it; 0 by all others.
    """

    by: Slopes

    def __new__(cls, value: float, by: Slopes) -> Traced:
        """Return the number."""
        made = super().__new__(cls, value)
        made.by = by
        return made

    def __add__(self, other: float) -> Traced:
        return Traced(float(self) + float(other), _sum(self.by, 1.0, slopes(other), 1.0))

    def __sub__(self, other: float) -> Traced:
        return Traced(float(self) - float(other), _sum(self.by, 1.0, slopes(other), -1.0))

    def __mul__(self, other: float) -> Traced:
        a, b = float(self), float(other)
        return Traced(a * b, _sum(self.by, b, slopes(other), a))

    def __truediv__(self, other: float) -> Traced:
        a, b = float(self), float(other)
        return Traced(a / b, _sum(self.by, 1 / b, slopes(other), -a / b**2))

    def __neg__(self) -> Traced:
        return Traced(-float(self), _sum(self.by, -1.0, {}, 0.0))

    def __abs__(self) -> Traced:
        return -self if self < 0 else self

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> Traced:
        return -self + other

    def __rtruediv__(self, other: float) -> Traced:
        return Traced(other, {}) / self


def slopes(value: object) -> Slopes:
    """Return the derivatives that a value carries; a plain one has none."""
    return value.by if isinstance(value, Traced) else {}


def exp(value: float) -> float:
    """Return ``e ** value``."""
    found = math.exp(value)
    return Traced(found, _sum(value.by, found, {}, 0.0)) if isinstance(value, Traced) else found


def _sum(a: Slopes, by_a: float, b: Slopes, by_b: float) -> Slopes:
    found = {name: by_a * slope for name, slope in a.items()}
    for name, slope in b.items():
        found[name] = found.get(name, 0.0) + by_b * slope
    return found

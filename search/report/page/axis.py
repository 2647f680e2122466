"""From numbers to places between 0 and 100 per cent, and the round numbers that stand there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from search.report.page.numbers import LARGE, LETTERS, MINUS, large

STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Args:
        low, high: Numbers at its ends.
        step: Between two ticks.
        label: What is measured, with its unit.
    """

    low: float
    high: float
    step: float
    label: str = ""

    @classmethod
    def of(
        cls,
        values: Iterable[float],
        label: str = "",
        *,
        room: float = 0.04,
        most: int = 6,
        whole: bool = False,
    ) -> Axis:
        """Return the axis that shows all finite ones of some numbers.

        Args:
            values: What it shows.
            label: What they are.
            room: Share of the span that is left free at each end.
            most: Number of ticks there may be.
            whole: Whether between whole numbers there is nothing.
        """
        finite = [x for x in values if math.isfinite(x)] or [0.0]
        low, high = min(finite), max(finite)
        span = high - low or max(abs(low), 1.0) * 0.2
        if high == low:
            low, high = low - span / 2, high + span / 2
        low, high = low - room * span, high + room * span
        step = nice((high - low) / most)
        if math.floor(high / step) - math.ceil(low / step) < 1:  # one tick says nothing of a scale
            step = nice(0.4 * step)
        return cls(low, high, max(1.0, step) if whole else step, label)

    def at(self, value: float) -> float:
        """Return where a number stands, in per cent from the low end; what is outside at an end."""
        share = (value - self.low) / (self.high - self.low) if value != self.low else 0.0
        return round(100 * min(1.0, max(0.0, share)), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Return place and text of every tick."""
        first, last = math.ceil(self.low / self.step), math.floor(self.high / self.step)
        values = [i * self.step for i in range(first, last + 1)]
        return [(self.at(x), self._text(x)) for x in values]

    def _text(self, value: float) -> str:
        behind = max(0, -math.floor(math.log10(self.step) + 1e-9))
        size = max(abs(self.low), abs(self.high))
        if size >= LARGE:
            power = max(p for p in LETTERS if size >= p)
            behind = max(0, -math.floor(math.log10(self.step / power) + 1e-9))
            return large(value, behind, size) if value else "0"
        if self.step >= 1:
            return f"{value:,.0f}".replace("-", MINUS)
        return f"{value:.{behind}f}".replace("-", MINUS)


def nice(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten: the least that is not below ``step``."""
    if not step > 0 or math.isinf(step):
        return 1.0
    ten = float(10.0 ** math.floor(math.log10(step)))
    return next(x * ten for x in STEPS if x * ten >= step * (1 - 1e-9))

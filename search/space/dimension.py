"""One number that a sampler draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from merge_core.contract import Param
from search.space.units import Drawn, Number
from search.spec.ranges import Knob


@dataclass(frozen=True)
class Dimension:
    """One number that the sampler draws: its name in the database and the knob it belongs to."""

    name: str
    knob: Knob
    param: Param | None  # None for the choice of a method, of who takes part, and for seeds
    number: Number | None = None  # its range; None for choices

    def takes(self, value: Any) -> bool:
        """Return whether a value is one that may be drawn."""
        if self.number is None:
            return repr(value) in map(repr, self.knob.choices)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return plain and abs(self.number.nearest(value) - value) <= 1e-9

    def on_grid(self, value: Drawn) -> Drawn:
        """Return a drawn value as it goes into the recipe: free of the grid's float noise."""
        if self.number is None or self.number.step is None:
            return value
        return self.knob.snapped(float(value))

"""Knobs of every kind as rows of numbers: continuous ones, grids, choices."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.samplers.cube import Cube, Vector

FINEST = 1000  # values of a grid; finer ones are drawn as continuous numbers and rounded

Free = tuple[tuple[str, BaseDistribution], ...]


class Coordinates:
    """Free knobs as rows: continuous numbers, then grids, in the cube; then places of choices.

    Args:
        free: Knob names with their distributions, each with more than one value.

    Attributes:
        cube: Of the numbers.
        grid: (numbers,), which of them are drawn as grids.
        choices: Knob name -> its choices.
    """

    def __init__(self, free: Free) -> None:
        numbers = {n: d for n, d in free if isinstance(d, FloatDistribution | IntDistribution)}
        fine = Cube(numbers)
        steps = dict(zip(fine.names, fine.cells, strict=True))
        ordered = sorted(numbers, key=lambda name: steps[name] * FINEST >= 1)
        self.cube = Cube({name: numbers[name] for name in ordered})
        self.grid = self.cube.cells * FINEST >= 1
        self.choices = {n: d.choices for n, d in free if isinstance(d, CategoricalDistribution)}

    def points(self, rows: list[dict[str, Any]]) -> Vector:
        """Return (n, numbers + choices); NaN for what a row does not have."""
        numbers = self.cube.points([[r.get(n, np.nan) for n in self.cube.names] for r in rows])
        chosen = [[_place(c, r[n]) if n in r else np.nan for n, c in self._items] for r in rows]
        places = np.array(chosen, dtype=np.float64).reshape(len(rows), len(self.choices))
        return np.hstack([numbers, places])

    def values(self, point: Vector) -> dict[str, Any]:
        """Return the values of a point."""
        numbers, places = point[: len(self.cube)], point[len(self.cube) :]
        chosen = zip(self._items, places, strict=True)
        return self.cube.values(numbers) | {name: c[int(place)] for (name, c), place in chosen}

    @property
    def _items(self) -> list[tuple[str, tuple[Any, ...]]]:
        return list(self.choices.items())


def _place(choices: tuple[Any, ...], value: Any) -> int:
    """Return the place of a choice; True is not 1."""
    return [(type(c), c) for c in choices].index((type(value), value))

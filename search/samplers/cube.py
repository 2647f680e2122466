"""Numeric knobs as the unit cube: log knobs by their logarithm, grid values in equal cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import FloatDistribution, IntDistribution

Vector = npt.NDArray[np.float64]
Number = FloatDistribution | IntDistribution


class Cube:
    """The way between values of knobs and points of [0, 1]^d.

    Args:
        space: Knob name -> distribution with more than one value; may be empty.

    Attributes:
        names: Of the knobs, in the order of a point's coordinates.
        grid: (d,), whether a coordinate has cells of equal width: steps, whole numbers.
        cells: (d,), width of a cell in the cube; 0 where there is no grid.
    """

    def __init__(self, space: Mapping[str, Number]) -> None:
        self.names = tuple(space)
        self._whole = [isinstance(d, IntDistribution) for d in space.values()]
        rows = [(d.low, d.high, d.step or 0.0, d.log) for d in space.values()]
        self._low, self._high, self._step, log = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        self._log = log == 1
        self._from = self._flat(self._low - self._step / 2)  # half a cell beyond the last value
        self._to = self._flat(self._high + self._step / 2)
        self.grid = (self._step > 0) & ~self._log
        self.cells = np.where(self.grid, self._step / (self._to - self._from), 0.0)

    def __len__(self) -> int:
        return len(self.names)

    def points(self, rows: Sequence[Sequence[float]]) -> Vector:
        """Return (n, d) values of the knobs as points of [0, 1]^d; NaN stays NaN."""
        values = np.array(rows, dtype=np.float64).reshape(len(rows), len(self))
        shares: Vector = (self._flat(values) - self._from) / (self._to - self._from)
        return np.clip(shares, 0.0, 1.0)

    def start(self, row: Mapping[str, Any] | None) -> Vector:
        """Return the (d,) point of named values, in the middle where a name is missing."""
        known = row or {}
        point = self.points([[known.get(name, np.nan) for name in self.names]])[0]
        return np.where(np.isnan(point), 0.5, point)

    def values(self, point: Vector) -> dict[str, float | int]:
        """Return the values of a (d,) point, on their grids and inside their ranges."""
        x = self._from + point * (self._to - self._from)
        x[self._log] = np.exp(x[self._log])
        step = np.where(self._step > 0, self._step, 1.0)
        x = np.where(self._step > 0, self._low + np.round((x - self._low) / step) * step, x)
        x = np.clip(x, self._low, self._high)
        return {
            name: int(value) if whole else float(value)
            for name, whole, value in zip(self.names, self._whole, x, strict=True)
        }

    def derivatives(self, point: Vector) -> Vector:
        """Return (d,) ``d value / d coordinate`` at a (d,) point; grids and ends do not count."""
        width = self._to - self._from
        values = np.exp(np.where(self._log, self._from + point * width, 0.0))
        return np.where(self._log, width * values, width)

    def _flat(self, values: Vector) -> Vector:  # (..., d)
        flat = values.copy()
        flat[..., self._log] = np.log(flat[..., self._log])
        return flat

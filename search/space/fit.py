"""Values at positions -> the numbers of a unit that come nearest to them; ``units`` backwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from statistics import fmean
from typing import Any

from search.space import units
from search.spec.ranges import Knob


def fitted(knob: Knob, wanted: Sequence[float], count: int) -> list[float]:
    """Return the numbers of a knob whose values are nearest, in the sum of squares.

    Args:
        knob: With a range.
        wanted: A value for every position; logits where there is a sum.
        count: How many numbers there are.
    """
    if not knob.spread or knob.per == "tensor":
        return list(wanted)
    if knob.per is not None:
        spans = units.bands(knob, len(wanted))
        return _shares(knob, [fmean(wanted[a : b + 1]) for a, b in spans])
    if knob.shape == "kernel":
        return _kernel(knob, wanted)
    return _shares(knob, _linear(knob, wanted, count))


def logits(shares: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the logits, of mean 0, whose softmax over models has these shares at each position."""
    least = exp(-2 * units.LOGIT)
    found = [[log(max(x, least)) for x in of_model] for of_model in shares]
    means = [fmean(column) for column in zip(*found, strict=True)]
    return [[x - mean for x, mean in zip(row, means, strict=True)] for row in found]


def _shares(knob: Knob, values: list[float]) -> list[float]:
    """Return values, or of an ordered knob each one's share of the way from the last to high."""
    if not knob.ordered:
        return values
    before = [knob.low, *values[:-1]]
    return [
        (b - a) / (knob.high - a) if knob.high - a > 1e-12 else 0.0
        for a, b in zip(before, values, strict=True)
    ]


def _linear(knob: Knob, wanted: Sequence[float], count: int) -> list[float]:
    """Return the numbers of a unit that is linear where it does not move values into the range."""
    import numpy as np

    wide = replace(knob, low=-1e9, high=1e9, sum=None, ordered=False)
    columns = [units.values(wide, row, len(wanted)) for row in np.eye(count).tolist()]
    ends = units.of_logits(knob)
    free = [ends.low < x < ends.high for x in wanted] if knob.cosine is not None else []
    rows = [i for i, inside in enumerate(free) if inside] or range(len(wanted))
    matrix, values = np.array(columns).T, np.array(wanted, dtype=float)
    found = [float(x) for x in np.linalg.lstsq(matrix[rows], values[rows], rcond=None)[0]]
    return found if all(free) else _nearest(knob, wanted, [found])


def _kernel(knob: Knob, wanted: Sequence[float]) -> list[float]:
    """Return peak, its layer, reach and floor.

    For a layer and a reach the rest is linear, so the best of a grid of both are the beginnings.
    """
    import numpy as np

    count, values = len(wanted), np.array(wanted, dtype=float)
    layers, begun = np.arange(count), []
    for where in np.arange(0.0, count - 0.5, 0.25):
        for reach in np.geomspace(1.001, count, 12):
            tent = np.maximum(0.0, 1 - np.abs(layers - where) / reach)
            matrix = np.stack([tent, 1 - tent], axis=1)
            peak, floor = np.linalg.lstsq(matrix, values, rcond=None)[0]
            missed = float(((matrix @ [peak, floor] - values) ** 2).sum())
            begun.append((missed, [float(peak), float(where), float(reach), float(floor)]))
    best = sorted(begun, key=lambda one: one[0])[:8]
    return _nearest(knob, wanted, [numbers for _, numbers in best])


def _nearest(knob: Knob, wanted: Sequence[float], begun: Sequence[Sequence[float]]) -> list[float]:
    """Return the numbers, inside their ranges, that come nearest from one of several beginnings."""
    import numpy as np
    from scipy.optimize import least_squares

    drawn = units.numbers(knob, len(wanted), [])
    low, high = (np.array([getattr(x, end) for x in drawn]) for end in ("low", "high"))

    def misses(numbers: Any) -> Any:
        return np.subtract(units.values(knob, [float(x) for x in numbers], len(wanted)), wanted)

    exact = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    margin = (high - low) * 1e-9  # it begins inside
    found = [
        least_squares(misses, np.clip(x, low + margin, high - margin), bounds=(low, high), **exact)
        for x in begun
    ]
    return [float(x) for x in min(found, key=lambda one: float(one.cost)).x]

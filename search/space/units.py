"""What a unit is: the numbers that are drawn for a knob, and the values that they make of them.

The values stand at positions: one for each layer, or for each tensor. Values over the layers, for a
range from ``low`` to ``high`` and ``n`` layers:

- ``per``: the number of the band that the layer is in.
- ``gradient: K``: K anchors, evenly spaced from the first layer to the last; linear between them.
- ``cosine: K``: the inverse of the orthogonal discrete cosine transform (DCT-II) over depth,
  ``mean + sum_k c_k cos(pi k (layer + 1/2) / n)`` for k = 1 .. K - 1, moved into the range. The
  mean is in ``[low, high]``, each other coefficient within half the range's width of 0.
- ``line``: ``a + b * layer / (n - 1)``, as LiNeS (arXiv:2410.17146) scales task vectors, said by
  its values at the first and the last layer, each in ``[low, high]``. A single layer has the last.
- ``kernel``: ``floor + (peak - floor) * max(0, 1 - |layer - peak layer| / reach)``: peak and floor
  in ``[low, high]``, the peak's layer in ``[0, n - 1]``, the reach in ``[1, n]`` layers.

With ``ordered`` each number of ``per`` or ``gradient`` is the share, in [0, 1], of the way from the
value before it (``low`` before the first) to ``high``, so values never fall and each such sequence
has its numbers. With ``sum`` the values are logits, in [-3, 3], of a softmax over the models: one
model can have e^6 = 400 times another's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

from merge_core.recipe.interpolate import at
from search.space.traced import exp
from search.spec.ranges import Knob

Drawn = bool | float | str
LOGIT = 3.0


@dataclass(frozen=True)
class Number:
    """One number that is drawn: its name inside the knob, "" if there is no other, and range."""

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    def nearest(self, value: float) -> float:
        """Return the value of the range that is nearest."""
        return Knob((), self.low, self.high, self.step).snapped(value)


def numbers(knob: Knob, layers: int, tensors: Sequence[str]) -> list[Number]:
    """Return what is drawn for a knob with a range.

    Args:
        knob: Of one unit, or none.
        layers: How many layers the model has.
        tensors: Those that the knob decides, in the order of their positions.
    """
    knob = of_logits(knob)
    if knob.ordered:
        return [Number(f"{name} share", 0.0, 1.0) for name in _names(knob, layers, tensors)]
    if knob.cosine is not None:
        half = (knob.high - knob.low) / 2
        rest = [Number(f"cosine {k}", -half, half) for k in range(1, knob.cosine)]
        return [Number("mean", knob.low, knob.high), *rest]
    if knob.shape == "kernel":
        last = max(layers - 1, 1)  # ends of a range differ
        where = [Number("peak layer", 0.0, last), Number("reach", 1.0, last + 1.0)]
        return [_value("peak", knob), *where, _value("floor", knob)]
    return [_value(name, knob) for name in _names(knob, layers, tensors)]


def _names(knob: Knob, layers: int, tensors: Sequence[str]) -> list[str]:
    if knob.per == "tensor":
        return list(tensors)
    if knob.per is not None:
        return [f"layer {a}" if a == b else f"layers {a}-{b}" for a, b in bands(knob, layers)]
    if knob.gradient is not None:
        return [f"anchor {i}" for i in range(knob.gradient)]
    return ["first", "last"] if knob.shape == "line" else [""]


def _value(name: str, knob: Knob) -> Number:
    return Number(name, knob.low, knob.high, knob.step, knob.log)


def bands(knob: Knob, layers: int) -> list[tuple[int, int]]:
    """Return first and last layer of what shares one number."""
    if isinstance(knob.per, tuple):
        return list(knob.per)
    assert isinstance(knob.per, int)
    return [(first, min(first + knob.per, layers) - 1) for first in range(0, layers, knob.per)]


def values(knob: Knob, drawn: Sequence[Any], layers: int) -> list[Any]:
    """Return the value at every position of a knob; of a knob that is not spread, its one value.

    Args:
        knob: With a range; with a sum the values are logits.
        drawn: One for each of :func:`numbers`; derivatives that they carry are carried on.
        layers: How many layers the model has.
    """
    knob = of_logits(knob)
    if knob.per == "tensor" or not knob.spread:
        return list(drawn)
    if knob.ordered:
        drawn = _cumulated(knob, drawn)
    if knob.per is not None:
        spans = bands(knob, layers)
        return [x for x, (a, b) in zip(drawn, spans, strict=True) for _ in range(a, b + 1)]
    depth = [i / (layers - 1) if layers > 1 else 1.0 for i in range(layers)]
    if knob.gradient is not None or knob.shape == "line":
        found: list[Any] = [at(list(drawn), t) for t in depth]
    elif knob.cosine is not None:
        found = [_cosines(drawn, (i + 0.5) / layers) for i in range(layers)]
    else:
        found = [_kernel(drawn, i) for i in range(layers)]
    return [min(max(x, knob.low), knob.high) for x in found]


def of_logits(knob: Knob) -> Knob:
    """Return the knob whose values are the logits, where there is a sum."""
    return knob if knob.sum is None else replace(knob, low=-LOGIT, high=LOGIT)


def _cumulated(knob: Knob, shares: Sequence[Any]) -> list[Any]:
    found = [knob.low]
    for share in shares:
        found.append(found[-1] + share * (knob.high - found[-1]))
    return found[1:]


def shared_out(total: float, logits: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the values that a softmax over models makes at every position, model by model."""
    weights = [[exp(x) for x in of_model] for of_model in logits]
    sums = [sum(column, start=0.0) for column in zip(*weights, strict=True)]
    return [[total * x / all_ for x, all_ in zip(row, sums, strict=True)] for row in weights]


def _cosines(drawn: Sequence[Any], depth: float) -> Any:
    return sum((c * cos(pi * k * depth) for k, c in enumerate(drawn)), start=0.0)


def _kernel(drawn: Sequence[Any], layer: int) -> Any:
    peak, where, reach, floor = drawn
    return floor + (peak - floor) * max(0.0, 1 - abs(where - layer) / reach)


def level(knob: Knob, value: float, drawn: Sequence[Number]) -> list[float]:
    """Return the numbers of a knob that give every position the same value of its range.

    With a sum that value is the same for all models, whatever was asked for.
    """
    if knob.sum is not None:
        return level(of_logits(replace(knob, sum=None)), 0.0, drawn)
    if knob.ordered:
        return [(value - knob.low) / (knob.high - knob.low)] + [0.0] * (len(drawn) - 1)
    if knob.cosine is not None:
        return [value] + [0.0] * (len(drawn) - 1)
    if knob.shape == "kernel":
        _, where, reach, _ = ((number.low + number.high) / 2 for number in drawn)
        return [value, where, reach, value]
    return [value] * len(drawn)

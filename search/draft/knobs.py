"""Which numbers of a method are searched, over which range, and how many for all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.contract import Method, Param
from merge_core.errors import ParameterError
from search.run.size import TRIALS_PER_DIMENSION

LOG_FROM = 100  # ratio of a range's ends from which the small values are given as much room
MOST_ANCHORS = 5
EXACTNESS = ("max_iter", "tol", "eps")  # parameters that say how exactly something is computed


@dataclass(frozen=True)
class Spread:
    """How a knob goes over the layers: keys of the knob, and in words."""

    keys: Mapping[str, Any]
    words: str


def searched(method: Method) -> tuple[Param, ...]:
    """Return the parameters that a first study searches; the first is spread over the layers.

    Those are the one that a one-dimensional search would turn, and all that a recipe must give or
    would put elsewhere than at the default.

    Raises:
        ParameterError: The method has no number to search.
    """
    numbers = [param for param in method.params if is_searched(param)]
    if not numbers:
        raise ParameterError(
            f"{method.name!r} has no number to search; merge with it by `mergetune merge`, or "
            f"choose another method"
        )
    lead, *others = numbers
    return lead, *(p for p in others if p.start is not None or p.default is None)


def is_searched(param: Param) -> bool:
    """Return whether a parameter is a number that decides what a merge is like."""
    return param.low is not None and param.name not in EXACTNESS


def knob(param: Param, spread: Spread | None = None) -> dict[str, Any]:
    """Return a range over what the method declares as usual."""
    return {**usual(param), **(spread.keys if spread else {})}


def usual(param: Param) -> dict[str, Any]:
    """Return the range that a method declares for a parameter."""
    assert param.low is not None
    assert param.high is not None
    low, high = float(param.low), float(param.high)
    return {"low": low, "high": high, **({"log": True} if 0 < low * LOG_FROM <= high else {})}


# Of parameters that a search by gradient turns, to which many knobs are as one.
TENSORS = Spread({"per": "tensor"}, "one number for each tensor, found by gradient")


def spread_over(layers: int | None, knobs: int, others: int, trials: int) -> Spread:
    """Return how finely knobs may be spread over the layers for a number of trials.

    Args:
        layers: Of the models; None where that is not known.
        knobs: How many are spread.
        others: Dimensions beside them.
        trials: The budget.
    """
    each = max(trials // TRIALS_PER_DIMENSION - others, 0) / knobs
    budget = f"{trials} trials ({TRIALS_PER_DIMENSION} or more for each number)"
    if layers is None:
        anchors = min(int(each), MOST_ANCHORS)
        if anchors < 2:
            return Spread({}, f"one number for all layers: more are many for {budget}")
        words = f"{anchors} numbers along the layers, interpolated between them"
        unknown = "the number of layers is not known before the model is here"
        return Spread({"gradient": anchors}, f"{words}: {unknown}")
    per = next((n for n in range(1, layers + 1) if math.ceil(layers / n) <= each), None)
    if per == 1:
        return Spread({"per": "layer"}, f"one number for each of the {layers} layers")
    if per is None or per == layers:
        return Spread({}, f"one number for all {layers} layers: more are many for {budget}")
    words = f"one number for every {per} of the {layers} layers: more are many for {budget}"
    return Spread({"per": per}, words)

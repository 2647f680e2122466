"""A knob: a place in a recipe where the study file has a range or choices instead of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from merge_core.errors import Problems, hint, join, shown

RANGE_KEYS = ("low", "high", "step", "log", "per", "gradient")
CHOICE_KEYS = ("choices",)
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Knob:
    """What the study file says at one place.

    Args:
        place: Keys and list positions from the recipe to the knob.
        low, high: Ends of a range, included; NaN for choices.
        step: Grid of the range from ``low``, or None.
        log: Whether the range is searched on a logarithmic scale.
        choices: The values of a knob without a range.
        per: Number of neighbouring layers that share one number, or None.
        gradient: Number of anchors that are interpolated over the layers, or None.
    """

    place: Place
    low: float = math.nan
    high: float = math.nan
    step: float | None = None
    log: bool = False
    choices: tuple[bool | float | str, ...] = ()
    per: int | None = None
    gradient: int | None = None

    @property
    def spread(self) -> bool:
        """Whether the knob stands for several numbers, spread over the layers."""
        return self.per is not None or self.gradient is not None

    def dimensions(self, layers: int) -> int:
        """Return how many numbers the knob stands for in a model of that many layers."""
        if self.gradient is not None:
            return self.gradient
        return math.ceil(layers / self.per) if self.per is not None else 1

    def snapped(self, value: float) -> float:
        """Return the value of the range that is nearest to ``value``."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        steps = round((inside - self.low) / self.step)
        return round(self.low + steps * self.step, 12)  # 0.1 + 0.2 is 0.3 in a recipe


def is_knob(data: Any) -> bool:
    """Return whether plain data is meant as a range or as choices."""
    return isinstance(data, dict) and bool({"low", "high", "choices"} & set(data))


def parse(data: dict[str, Any], place: Place, path: str, problems: Problems) -> Knob | None:
    """Read one range or one set of choices; add what is wrong to ``problems``."""
    found: Problems = []
    known = CHOICE_KEYS if "choices" in data else RANGE_KEYS
    for key in data:
        if key not in known:
            found.append((join(path, str(key)), f"unknown key{hint(str(key), known)}"))
    knob = (
        _choices(data, place, path, found)
        if "choices" in data
        else _range(data, place, path, found)
    )
    problems.extend(found)
    return None if found else knob


def _choices(data: dict[str, Any], place: Place, path: str, problems: Problems) -> Knob | None:
    values = data["choices"]
    where = join(path, "choices")
    plain = isinstance(values, list) and all(
        isinstance(v, bool | int | float | str) for v in values
    )
    if not plain or len(values) < 2:
        problems.append((where, f"expected a list of two or more values, got {shown(values)}"))
        return None
    if len({repr(v) for v in values}) < len(values):
        problems.append((where, "a value is listed twice"))
    return Knob(place, choices=tuple(values))


def _range(data: dict[str, Any], place: Place, path: str, problems: Problems) -> Knob | None:
    low, high = _number(data, "low", path, problems), _number(data, "high", path, problems)
    step = _number(data, "step", path, problems) if "step" in data else None
    log = data.get("log", False)
    if not isinstance(log, bool):
        problems.append((join(path, "log"), f"expected true or false, got {shown(log)}"))
    per = _count(data, "per", path, problems, least=1)
    gradient = _count(data, "gradient", path, problems, least=2)
    if low is None or high is None:
        return None
    if not low < high:
        problems.append((path, f"low must be below high, got low {low:g} and high {high:g}"))
    if step is not None and not 0 < step <= (high - low) * (1 + 1e-9):  # 0.3 - 0.1 is below 0.2
        problems.append((join(path, "step"), f"must be above 0 and fit the range, got {step:g}"))
    elif step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
        problems.append((path, f"high must be low plus a whole number of steps of {step:g}"))
    if log is True and (low <= 0 or step is not None):
        problems.append((join(path, "log"), "needs low above 0 and no step"))
    if per is not None and gradient is not None:
        problems.append((path, "has per and gradient; choose one"))
    return Knob(place, low, high, step, log is True, per=per, gradient=gradient)


def _number(data: dict[str, Any], key: str, path: str, problems: Problems) -> float | None:
    value = data.get(key)
    if key not in data:
        problems.append((join(path, key), "required in a range"))
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        problems.append((join(path, key), f"expected a number, got {shown(value)}"))
        return None
    return float(value)


def _count(data: dict[str, Any], key: str, path: str, problems: Problems, least: int) -> int | None:
    if key not in data:
        return None
    value = data[key]
    if key == "per" and value == "layer":
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        words = "layer or a whole number" if key == "per" else "a whole number"
        rule = f"expected {words} of at least {least}, got {shown(value)}"
        problems.append((join(path, key), rule))
        return None
    return value

"""A knob: a place in a recipe where the study file has a range or choices instead of a value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from merge_core.errors import Problems
from merge_core.validation import Place, StrictModel, Words, failed, read


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
    said = read(_Choices if "choices" in data else _Range, data, path, problems)
    return None if said is None else Knob(place, **dict(said))


def _distinct(values: list[Any]) -> tuple[Any, ...]:
    if len({repr(v) for v in values}) < len(values):
        raise ValueError("a value is listed twice")
    return tuple(values)


class _Choices(StrictModel):
    choices: Annotated[
        list[bool | int | float | str],
        Field(min_length=2),
        AfterValidator(_distinct),
        Words("a list of two or more values"),
    ]


def _layers(count: int | Literal["layer"] | None) -> int | None:
    return 1 if count == "layer" else count


class _Range(StrictModel):
    low: float = Field(title="required in a range")
    high: float = Field(title="required in a range")
    step: float | None = None
    log: bool = False
    per: Annotated[
        Annotated[int, Field(ge=1)] | Literal["layer"] | None,
        AfterValidator(_layers),
        Words("layer or a whole number of at least 1"),
    ] = None
    gradient: Annotated[int | None, Field(ge=2), Words("a whole number of at least 2")] = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> _Range:
        problems = list(self._misfits())
        if problems:
            raise failed(problems)
        return self

    def _misfits(self) -> Iterator[tuple[Place, str]]:
        low, high, step = self.low, self.high, self.step
        if not low < high:
            yield (), f"low must be below high, got low {low:g} and high {high:g}"
        if step is not None and not 0 < step <= (high - low) * (1 + 1e-9):  # 0.3 - 0.1 is below 0.2
            yield ("step",), f"must be above 0 and fit the range, got {step:g}"
        elif step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
            yield (), f"high must be low plus a whole number of steps of {step:g}"
        if self.log and (low <= 0 or step is not None):
            yield ("log",), "needs low above 0 and no step"
        if self.per is not None and self.gradient is not None:
            yield (), "has per and gradient; choose one"

"""A knob: a place in a recipe where the study file has a range or choices instead of a value."""

from __future__ import annotations

import math
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
    if len(set(map(repr, values))) < len(values):
        raise ValueError("a value is listed twice")
    return tuple(values)


class _Choices(StrictModel):
    choices: Annotated[
        list[bool | int | float | str],
        Field(min_length=2, max_length=100),
        AfterValidator(_distinct),
        Words("a list of 2 to 100 values"),
    ]


class _Range(StrictModel):
    low: float = Field(title="required in a range")
    high: float = Field(title="required in a range")
    step: float | None = None
    log: bool = False
    per: Annotated[
        Annotated[int, Field(ge=1)] | Literal["layer"] | None,
        AfterValidator(lambda count: 1 if count == "layer" else count),
        Words("layer or a whole number of at least 1"),
    ] = None
    gradient: Annotated[
        int | None, Field(ge=2, le=1000), Words("a whole number from 2 to 1000")
    ] = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> _Range:
        low, width, step = self.low, self.high - self.low, self.step
        found: list[tuple[Place, str]] = []
        if not width > 0:
            found.append(((), f"low must be below high, got low {low:g} and high {self.high:g}"))
        if step is not None and not 0 < step <= width * (1 + 1e-9):  # 0.3 - 0.1 is below 0.2
            found.append((("step",), f"must be above 0 and fit the range, got {step:g}"))
        elif step is not None and abs(width / step - round(width / step)) > 1e-9:
            found.append(((), f"high must be low plus a whole number of steps of {step:g}"))
        if self.log and (low <= 0 or step is not None):
            found.append((("log",), "needs low above 0 and no step"))
        if self.per is not None and self.gradient is not None:
            found.append(((), "has per and gradient; choose one"))
        if found:
            raise failed(found)
        return self

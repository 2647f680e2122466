"""A knob: a place in a recipe where the study file has a range or choices instead of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from merge_core.errors import Problems, hint, shown
from merge_core.validation import Place, StrictModel, Words, failed, read

Per = int | Literal["tensor"] | tuple[tuple[int, int], ...]
SEARCH = "search"  # in place of a value: the range that the method declares
UNITS = ("per", "gradient", "cosine", "shape")  # keys of which a range has at most one
_PER = "layer, tensor, a whole number of at least 1, or bands such as [[0, 3], [4, 11]]"


@dataclass(frozen=True)
class Knob:
    """What the study file says at one place.

    Args:
        place: Keys and list positions from the recipe to the knob.
        low, high: Ends of a range, included; NaN for choices.
        step: Grid of the range from ``low``, or None.
        log: Whether the range is searched on a logarithmic scale.
        choices: The values of a knob without a range.
        per: What shares one number: so many neighbouring layers, the layers of each band (first
            and last, included), or ``tensor``: nothing, each tensor has its own.
        gradient: Number of anchors that are interpolated over the layers, or None.
        cosine: Number of coefficients of a smooth curve over the layers, or None.
        shape: Of a curve over the layers that few numbers describe, or None.
        ordered: Whether the values never fall from one layer to the next.
        tied: Name of a knob that several places share, or None.
        sum: What the values of all models at this place add up to, or None.
        start: A value that is known to be good, at all positions, or None.
    """

    place: Place
    low: float = math.nan
    high: float = math.nan
    step: float | None = None
    log: bool = False
    choices: tuple[bool | float | str, ...] = ()
    per: Per | None = None
    gradient: int | None = None
    cosine: int | None = None
    shape: Literal["line", "kernel"] | None = None
    ordered: bool = False
    tied: str | None = None
    sum: float | None = None
    start: bool | float | str | None = None

    @property
    def spread(self) -> bool:
        """Whether the knob stands for several values, spread over layers or tensors."""
        return self.unit is not None

    @property
    def unit(self) -> str | None:
        """The key that says how it is spread, or None."""
        return next((key for key in UNITS if getattr(self, key) is not None), None)

    def snapped(self, value: float) -> float:
        """Return the value of the range that is nearest to ``value``."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        steps = round((inside - self.low) / self.step)
        return round(self.low + steps * self.step, 12)  # 0.1 + 0.2 is 0.3 in a recipe


@dataclass(frozen=True)
class Declared:
    """What a study file need not say of a parameter, since its method does."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[bool | float | str, ...] = ()
    lacks: str = "required in a range"  # why there is no range; nothing where there is one


UNKNOWN = Declared()


def is_knob(data: Any, *, parameter: bool = False) -> bool:
    """Return whether plain data is meant as a range or as choices.

    Args:
        data: What stands at some place.
        parameter: Whether a parameter's value stands there, which may leave out both ends.
    """
    if parameter and data == SEARCH:
        return True
    known = {"low", "high", "choices", *(RangeKeys.declared() if parameter else ())}
    return isinstance(data, dict) and bool(known & set(data)) and "value" not in data


def parse(
    data: Any, place: Place, path: str, problems: Problems, declared: Declared = UNKNOWN
) -> Knob | None:
    """Read one range or one set of choices; add what is wrong to ``problems``."""
    found: Problems = []
    said = {} if data == SEARCH else dict(data)
    if not {"low", "high", "choices", "sum"} & said.keys():
        said |= _declared(said, declared, path, found)
    said_of = read(ChoicesKeys if "choices" in said else RangeKeys, said, path, found)
    problems.extend(found)
    if said_of is None or found:
        return None
    given = dict(said_of)
    if given.get("sum") is not None:
        given |= {"low": 0.0, "high": given["sum"]}
    return Knob(place, **given)


def _declared(
    said: dict[str, Any], declared: Declared, path: str, problems: Problems
) -> dict[str, Any]:
    """Return the keys that a declaration gives; of what it lacks such that hide nothing else."""
    if declared.lacks:
        problems.append((path, f"{declared.lacks}; give low and high"))
        return {"low": 1.0, "high": 2.0, "step": None, "log": False}
    if declared.choices:
        return {"choices": list(declared.choices)}
    log = {"log": True} if declared.log and not {"step", "log", "cosine"} & said.keys() else {}
    return {"low": declared.low, "high": declared.high, **log}


def _distinct(values: list[Any]) -> tuple[Any, ...]:
    if len(set(map(repr, values))) < len(values):
        raise ValueError("a value is listed twice")
    return tuple(values)


def _per(data: Any) -> Any:
    """Read what ``per`` says: ``layer`` is one layer, a list are bands."""
    if data is None or data == "tensor":
        return data
    if data == "layer":
        return 1
    if isinstance(data, int) and not isinstance(data, bool) and data >= 1:
        return data
    if not isinstance(data, list) or not data:
        near = hint(data, ("layer", "tensor")) if isinstance(data, str) else ""
        raise ValueError(f"expected {_PER}, got {shown(data)}{near}")
    return _bands(data)


def _bands(data: list[Any]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[Place, str]] = []
    after = 0  # the layer that the next band begins with
    for i, band in enumerate(data):
        if not (isinstance(band, list) and len(band) == 2 and all(type(x) is int for x in band)):
            raise failed([((i,), f"expected [first layer, last layer], got {shown(band)}")])
        first, last = band
        if first > last:
            found.append(((i,), f"the first layer of a band comes before the last, got {band}"))
        elif first < after:
            found.append(((i,), f"begins at layer {first}, which a band before it has"))
        elif first > after:
            found.append(((i,), f"begins at layer {first}; {_span(after, first - 1)} in no band"))
        after = max(after, last + 1)
    if found:
        raise failed(found)
    return tuple((first, last) for first, last in data)


def _span(first: int, last: int) -> str:
    return f"layer {first} is" if first == last else f"layers {first} to {last} are"


_Name = Annotated[str | None, Field(min_length=1), Words("a name")]


class ChoicesKeys(StrictModel):
    """Keys of a knob with choices."""

    choices: Annotated[
        list[bool | int | float | str],
        Field(min_length=2, max_length=100),
        AfterValidator(_distinct),
        Words("a list of 2 to 100 values"),
    ]
    tied: _Name = None
    start: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _start_is_one(self) -> ChoicesKeys:
        if self.start is not None and repr(self.start) not in map(repr, self.choices):
            raise failed([(("start",), f"must be one of the choices, got {shown(self.start)}")])
        return self


class RangeKeys(StrictModel):
    """Keys of a knob with a range."""

    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    per: Annotated[Any, BeforeValidator(_per), Words(_PER)] = None
    gradient: Annotated[
        int | None, Field(ge=2, le=1000), Words("a whole number from 2 to 1000")
    ] = None
    cosine: Annotated[int | None, Field(ge=1, le=1000), Words("a whole number from 1 to 1000")] = (
        None
    )
    shape: Literal["line", "kernel"] | None = None
    ordered: bool = False
    tied: _Name = None
    sum: Annotated[float | None, Field(gt=0), Words("a number above 0")] = None
    start: float | None = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> RangeKeys:
        found = self._wrong_unit()
        if self.sum is None:
            ends = {"low": self.low, "high": self.high}
            missing = [((key,), "required in a range") for key, x in ends.items() if x is None]
            found = [*(missing or self._wrong_range()), *found]
        else:
            found += self._wrong_sum()
        if found:
            raise failed(found)
        return self

    def _wrong_sum(self) -> list[tuple[Place, str]]:
        rules = {
            "low": "a sum has no ends: each share is above 0 and below the sum; omit it",
            "high": "a sum has no ends: each share is above 0 and below the sum; omit it",
            "step": "shares of a sum have no grid; omit it",
            "log": "shares of a sum have no scale; omit it",
            "ordered": "shares of a sum are not ordered over the layers; choose one",
            "tied": "shares of a sum cannot be tied; choose one",
            "start": "shares of a sum start equal; name a recipe under `search: start:`",
        }
        return [((key,), rule) for key, rule in rules.items() if self._says(key)]

    def _says(self, key: str) -> bool:
        value = getattr(self, key)
        return value is not None and value is not False

    def _wrong_range(self) -> list[tuple[Place, str]]:
        assert self.low is not None
        assert self.high is not None
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
        if self.start is not None and not found:
            found += self._wrong_start(self.start, low, self.high)
        return found

    def _wrong_start(self, start: float, low: float, high: float) -> list[tuple[Place, str]]:
        if not low <= start <= high:
            return [(("start",), f"must be in [{low:g}, {high:g}], got {start:g}")]
        steps = (start - low) / self.step if self.step else 0.0
        if abs(steps - round(steps)) > 1e-9:
            return [(("start",), f"must be low plus a whole number of steps, got {start:g}")]
        return []

    def _wrong_unit(self) -> list[tuple[Place, str]]:
        units = [key for key in UNITS if getattr(self, key) is not None]
        found: list[tuple[Place, str]] = []
        if len(units) > 1:
            found.append(((), f"has {' and '.join(units)}; choose one"))
        for key, given in (("step", self.step is not None), ("log", self.log)):
            if given and self.cosine is not None:
                found.append(((key,), "a sum of cosines has none; omit it, or use gradient"))
            elif given and self.ordered:
                found.append(((key,), "an ordered knob has none; omit it"))
        if self.ordered and (units not in (["per"], ["gradient"]) or self.per == "tensor"):
            rule = "needs an order of values: per: layer, per: N, bands, or gradient: K"
            found.append((("ordered",), rule))
        return found

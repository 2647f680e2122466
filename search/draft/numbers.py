"""The numbers of a recipe as ranges around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from merge_core.contract import Method, Param
from merge_core.errors import ParameterError, join
from merge_core.recipe.schema import Scalar
from merge_core.validation import Place
from search.draft.knobs import TENSORS, Spread, is_searched, usual
from search.draft.layered import Case, Cases, StackedError

WIDER = 1.5  # a range reaches so far beyond a number that is outside the usual one


def nothing_to_search(method: Method) -> ParameterError:
    """Return the error of a recipe without numbers."""
    return ParameterError(
        f"the recipe gives {method.name!r} no number that a study could search; see `mergetune "
        f"methods {method.name}`"
    )


class Numbers:
    """Writes settings of a recipe with ranges in them.

    ``spread`` is how plain numbers of the method's main parameter go over the layers; ``at`` has
    the numbers of each range, by its place, ``comments`` what is said of it.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self.spread: Spread = TENSORS
        self.at: dict[Place, tuple[float, ...]] = {}
        self.comments: dict[str, str] = {}

    def searched(self, cases: Mapping[str, list[Case]]) -> list[tuple[Param, Case]]:
        """Return the numbers that become knobs."""
        params = [(self._method.param(name), listed) for name, listed in cases.items()]
        return [
            (param, case)
            for param, listed in params
            if param is not None and is_searched(param)
            for case in listed
        ]

    def parameters(self, cases: Cases, place: Place) -> dict[str, Any]:
        """Return settings by name, for the parameters at a place of the recipe."""
        return {name: self._setting(name, x, (*place, name)) for name, x in cases.items()}

    def _setting(self, name: str, cases: list[Case], place: Place) -> Any:
        param = self._method.param(name)
        alone = len(cases) == 1 and not cases[0].filter
        places = [place if alone else (*place, i, "value") for i in range(len(cases))]
        if param is None or not self.searched({name: cases}):
            values = [_kept(name, case) for case in cases]
        else:
            pairs = zip(cases, places, strict=True)
            values = [self._knob(param, case, where) for case, where in pairs]
            self.comments[reduce(join, place, "recipe")] = self._words(param, cases)
        if alone:
            return values[0]
        parts = [{"filter": case.filter} if case.filter else {} for case in cases]
        return [{**part, "value": value} for part, value in zip(parts, values, strict=True)]

    def _words(self, param: Param, cases: list[Case]) -> str:
        said = "; ".join(", ".join(map(_shown, case.values)) for case in cases)
        words = [param.meaning, f"in the recipe: {said}"]
        if param is self._method.params[0] and not all(case.keys for case in cases):
            words.append(self.spread.words)
        return "; ".join(filter(None, words))

    def _knob(self, param: Param, case: Case, place: Place) -> Any:
        lead, numbers = param is self._method.params[0], tuple(float(x) for x in case.values)
        if case.apart:
            for i, number in enumerate(numbers):
                self.at[(*place, i)] = (number,)
            return [{**around(param, numbers), "start": number} for number in numbers]
        self.at[place] = numbers
        spread = self.spread.keys if lead and not case.keys else case.keys
        start = {"start": numbers[0]} if len(set(numbers)) == 1 else {}
        return {**around(param, numbers), **spread, **start}


def around(param: Param, numbers: Sequence[float]) -> dict[str, Any]:
    """Return the usual range of a parameter, made wider where numbers are outside of it."""
    found = usual(param)
    low, high = min(numbers), max(numbers)
    if high > found["high"]:
        found["high"] = min(_rounded(high * WIDER), param.maximum)
    if low < found["low"]:
        lower = max(_rounded(low * WIDER if low < 0 else low / WIDER), param.minimum)
        found["low"] = lower if lower > param.above else low
    if found["low"] <= 0:
        found.pop("log", None)
    return found


def _kept(name: str, case: Case) -> Any:
    """Return what is no number to search as it stands.

    Raises:
        StackedError: Slices have it differently.
    """
    if len(set(map(repr, case.values))) == 1:
        return case.values[0]
    if "gradient" in case.keys or case.apart:
        return list(case.values)
    raise StackedError(f"{name}: not all slices have the same value")


def _shown(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")

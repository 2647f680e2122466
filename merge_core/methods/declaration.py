"""What a merge method says about itself, once: validation, search bounds and docs read it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Value = bool | float | str
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Param:
    """One parameter of a method.

    Args:
        name: As written in a recipe.
        meaning: One line for ``mergetune methods``.
        low, high: Usual search range of a number; None for flags and choices.
        default: None means that the recipe must give it.
        scope: ``model``: one value per model; ``shared``: one for the merge. Either way it is
            resolved anew for every tensor, so filters and gradients apply.
        minimum, maximum: Hard limits, included; ``above``: a hard limit, excluded.
        choices: The allowed values of a parameter that is not a number. Flags have True and False.
        start: Where an unsearched recipe would put it, if not at ``default``.
    """

    name: str
    meaning: str
    low: float | None = None
    high: float | None = None
    default: Value | None = None
    scope: Literal["model", "shared"] = "model"
    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    choices: tuple[Value, ...] = ()
    start: Value | None = None

    def rule_broken_by(self, value: Any) -> str | None:
        """Return ``rule, got value`` if this parameter cannot be ``value``, else None."""
        if self.choices:
            known = any(value is c if isinstance(c, bool) else value == c for c in self.choices)
            words = " or ".join(shown(c) for c in self.choices)
            return None if known else f"expected {words}, got {shown(value)}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"expected a number, got {shown(value)}"
        if not abs(value) <= sys.float_info.max:  # also refuses nan, and integers past any float
            return f"expected a finite number, got {value}"
        if not self.minimum <= value <= self.maximum or value <= self.above:
            return f"must be in {self._interval()}, got {value}"
        return None

    def _interval(self) -> str:
        left = f"({self.above:g}" if math.isfinite(self.above) else f"[{self.minimum:g}"
        right = f"{self.maximum:g}]" if math.isfinite(self.maximum) else "inf)"
        return f"{left}, {right}"


def shown(value: Any) -> str:
    """Return a value in the words of the file's language: ``true``, not ``True``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Cut:
    """What stays of one tensor of a task vector that is trimmed as a whole.

    Args:
        threshold: Entries with ``|d| > threshold`` stay.
        equal: Of those with ``|d| == threshold``, so many stay, the first in flat order.
    """

    threshold: float
    equal: int


@dataclass(frozen=True)
class Inputs:
    """What a method gets for one output tensor.

    Args:
        models: ``(*shape)`` each, stored type, in recipe order, the base not among them unless the
            method takes no base.
        base: ``(*shape)`` in its stored type, or None.
        values: One mapping per entry of ``models``: the parameters of scope ``model``.
        shared: The parameters of scope ``shared``.
        keys: One 64-bit key per entry of ``models`` for its random mask; see ``merge_core.mask``.
        cuts: One per entry of ``models``, from ``merge_core.whole_vector``; None, and none at all:
            the tensor is its model's whole task vector.
    """

    models: Sequence[Tensor]
    base: Tensor | None
    values: Sequence[Values]
    shared: Values
    keys: Sequence[int]
    cuts: Sequence[Cut | None] = ()

    def numbers(self, name: str) -> list[float]:
        """Return the parameter ``name`` of every model."""
        return [float(values[name]) for values in self.values]

    def number(self, name: str) -> float:
        """Return the shared parameter ``name``."""
        return float(self.shared[name])

    def deltas(self) -> list[Tensor]:
        """Return ``W_i - W_b`` for every model, ``(*shape)`` float32."""
        assert self.base is not None
        base = self.base.float()
        return [model.float() - base for model in self.models]


@dataclass(frozen=True)
class Method:
    """A merge method: a function plus facts.

    Args:
        name: As written under ``merge_method``.
        merge: Gives the merged tensor, ``(*shape)`` float32, a new tensor.
        params: Every parameter that a recipe may give; the first number is the one that a
            one-dimensional search would turn.
        base: ``required``, ``optional``, or ``none``: the method has no use for one.
        models: Least and greatest number of models that go in, the base included; None: no limit.
        draws: Whether the result depends on random masks.
        reference: The source.
    """

    name: str
    merge: Callable[[Inputs], Tensor]
    params: tuple[Param, ...]
    base: Literal["required", "optional", "none"]
    models: tuple[int, int | None]
    reference: str
    draws: bool = False

    def param(self, name: str) -> Param | None:
        """Return the parameter of that name, or None."""
        return next((param for param in self.params if param.name == name), None)

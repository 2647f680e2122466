"""What a merge method says about itself, once: validation, search bounds and docs read it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from merge_core.errors import shown

if TYPE_CHECKING:
    from torch import Tensor as Tensor  # so that methods need no torch to be declared
else:
    Tensor = "torch.Tensor"

T = TypeVar("T")
Value = bool | float | str
Remember = Callable[[Any, tuple[int, ...], Callable[[], Any], Any], Any]
Values = Mapping[str, Value]
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "1.0": True}
_FLAGS |= {"false": False, "no": False, "off": False, "0": False, "0.0": False}
_NUMBER = re.compile(r"\s*[-+]?(\d{1,300}\.?\d{0,300}|\.\d{1,300})([eE][-+]?\d{1,4})?\s*")


@dataclass(frozen=True)
class Param:
    """One parameter of a method, resolved anew for every tensor: filters and gradients apply."""

    name: str  # as written in a recipe
    meaning: str  # one line for ``mergetune methods``
    low: float | None = None  # usual search range of a number; None for flags and choices
    high: float | None = None
    default: Value | None = None  # None means that the recipe must give it
    scope: Literal["model", "shared"] = "model"  # one value per model, or one for the merge
    minimum: float = -math.inf  # hard limits, included
    maximum: float = math.inf
    above: float = -math.inf  # a hard limit, excluded
    choices: tuple[Value, ...] = ()  # allowed values of what is not a number; flags: True, False
    start: Value | None = None  # where an unsearched recipe would put it, if not at ``default``
    # whether the result has a derivative by it, with masks, cuts and elected signs held fixed
    smooth: bool = False

    def meant_by(self, value: Value) -> Value:
        """Return a value in its plain form: flags for 0, 1 and their words, numbers for their text.

        What cannot be one of this parameter's values is returned as it is.
        """
        if self.rule_broken_by(value) is None:
            return value
        if any(choice is True for choice in self.choices):
            flag = flag_of(value)
            return value if flag is None else flag
        if not self.choices and isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)
        return value

    def rule_broken_by(self, value: Any) -> str | None:
        """Return ``rule, got value`` if this parameter cannot be ``value``, else None."""
        if self.choices:
            known = any(value is c if isinstance(c, bool) else value == c for c in self.choices)
            words = " or ".join(shown(c) for c in self.choices)
            return None if known else f"expected {words}, got {shown(value)}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"expected a number, got {shown(value)}"
        if not abs(value) <= sys.float_info.max:  # also refuses nan, and integers past any float
            return f"expected a finite number, got {shown(value)}"
        if not self.minimum <= value <= self.maximum or value <= self.above:
            left = f"({self.above:g}" if math.isfinite(self.above) else f"[{self.minimum:g}"
            right = f"{self.maximum:g}]" if math.isfinite(self.maximum) else "inf)"
            return f"must be in {left}, {right}, got {shown(value)}"
        return None


def flag_of(value: Any) -> bool | None:
    """Return the flag that 0, 1, their text or YAML's words stand for; None if it is none."""
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


shared = partial(Param, scope="shared")  # one value for the merge


def flag(name: str, meaning: str, *, default: bool) -> Param:
    """Return a parameter that is true or false, one for the merge."""
    return shared(name, meaning, default=default, choices=(True, False))


def required(given: T | None) -> T:
    """Return what is always there, such as the base of a method that needs one."""
    assert given is not None
    return given


@dataclass(frozen=True)
class Cut:
    """Where a vector's entries are divided into small and large ones."""

    threshold: float  # smaller entries are on the small side, larger ones on the large side
    place: int  # divides the entries equal to the threshold, by their place in the flat tensor


@dataclass(frozen=True)
class Inputs:
    """What a method gets for one output tensor; one entry per model in all but base and shared."""

    # ``(*shape)`` each, stored type, in recipe order; the base only if the method takes none
    models: Sequence[Tensor]
    base: Tensor | None  # ``(*shape)`` in its stored type
    values: Sequence[Values]  # the parameters of scope ``model``
    shared: Values  # those of scope ``shared``
    keys: Sequence[int]  # 64 bits for the random mask, see ``numerics.bernoulli``
    # where whole task vectors are trimmed; none at all: the tensor is its model's whole task vector
    cuts: Sequence[Cut | None] = ()
    once: Remember | None = None  # remembers what a study needs again; see :meth:`remembered`

    def remembered(
        self, what: Any, models: Sequence[int], compute: Callable[[], T], version: Any = None
    ) -> T:
        """Return ``compute()``, or what it gave before on the same tensors.

        Args:
            what: Names the quantity, with all numbers that it depends on; a plain name has none.
            models: Places in ``models`` of the tensors that it depends on, beside the base.
            compute: Gives the quantity; without a memory it is called each time.
            version: More that it depends on, of which only the last is worth keeping.
        """
        if self.once is None:
            return compute()
        found: T = self.once(what, tuple(models), compute, version)
        return found

    def numbers(self, name: str) -> list[float]:
        """Return the parameter ``name`` of every model."""
        return [float(values[name]) for values in self.values]

    def number(self, name: str) -> float:
        """Return the shared parameter ``name``."""
        return float(self.shared[name])

    def deltas(self) -> list[Tensor]:
        """Return ``W_i - W_b`` for every model, ``(*shape)`` float32."""
        base = required(self.base).float()
        return [model.float() - base for model in self.models]


class Block(NamedTuple):
    """Some entries of one tensor, as an entry function sees them; see :class:`Prepared`."""

    models: Sequence[Tensor]  # float32 each, of one shape
    base: Tensor | None  # the same
    numbers: Mapping[str, Sequence[float]]  # or tensors that broadcast over the block
    flags: tuple[Any, ...]
    words: Mapping[str, Sequence[int]]
    arrays: Mapping[str, Sequence[Tensor]]
    places: Tensor | None  # in the flat tensor, modulo ``2**32``, int32; None: nothing is drawn

    def deltas(self) -> list[Tensor]:
        """Return ``W_i - W_b`` for every model."""
        return [model - required(self.base) for model in self.models]


@dataclass(frozen=True)
class Prepared:
    """All that an entry function needs to know of a whole tensor, by name."""

    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)  # such as weights
    flags: tuple[Any, ...] = ()  # what the entry function branches on; hashable
    words: Mapping[str, Sequence[int]] = field(default_factory=dict)  # 32 bits: parts of mask keys
    # in order: from that flat place on these numbers hold
    changes: Sequence[tuple[int, Mapping[str, Sequence[float]]]] = ()
    # ``(rows, 1)``: numbers of each row, what the last axis holds
    rows: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    # ``(1, columns)``: of each column, what the first axis holds; not together with ``rows``
    columns: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    arrays: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)  # of the tensor's shape


@dataclass(frozen=True)
class Method:
    """A merge method: functions plus facts; ``kernels.run.merge`` runs it.

    Either ``merge``, or ``prepare`` and ``entry``: then a tensor is merged block by block, in the
    cache, or by a fused kernel made from ``entry``.

    Functions give new tensors, ``(*shape)`` float32, or blocks.
    """

    name: str  # as written under ``merge_method``
    params: tuple[Param, ...]  # the first number is what a one-dimensional search would turn
    base: Literal["required", "optional", "none"]  # ``none``: the method has no use for one
    models: tuple[int, int | None]  # least and greatest number, the base included; None: no limit
    source: str  # the paper, or what else the method comes from
    merge: Callable[[Inputs], Tensor] | None = None
    draws: bool = False  # whether the result depends on random masks
    # reads the whole tensors as far as it must: sums, thresholds, ranks
    prepare: Callable[[Inputs], Prepared] | None = None
    entry: Callable[[Block], Tensor] | None = None  # nothing of other entries goes into an entry
    # what a study spends once, about, for an entry of each model beside the base, in nanoseconds
    # and bytes kept: cuts, ranks, sums (``benchmarks/candidate_build.py``, two cores)
    once_ns: float = 0.0
    once_bytes: float = 0.0
    # for ``mergetune methods NAME`` and the documentation; the contract suite asks for all three
    about: str = ""  # what it does to the weights and whose idea that is, a paragraph
    formula: str = ""  # what comes out, in the notation of ``methods``; in lines where need be
    when: str = ""  # when to choose it, a sentence or two
    reference: Callable[[Inputs], Tensor] | None = None  # plain torch: what kernels are held to
    # whether one model alone, with these parameters of its own, comes out as it went in, to the bit
    passes_on: Callable[[Mapping[str, Value]], bool] | None = None

    def param(self, name: str) -> Param | None:
        """Return the parameter of that name, or None."""
        return next((param for param in self.params if param.name == name), None)

    @property
    def takes(self) -> str:
        """How many models go in, and whether there is a base among them, in words."""
        least, most = self.models
        count = "" if most == least else " or more" if most is None else f" to {most}"
        base = "not used" if self.base == "none" else f"{self.base}, and one of them"
        return f"{least}{count}; base_model: {base}"


@dataclass(frozen=True)
class Described:
    """What stands in a recipe beside methods and is explained as they are; see :class:`Method`."""

    name: str
    params: tuple[Param, ...]
    source: str
    about: str
    formula: str
    when: str
    takes: str

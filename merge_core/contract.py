"""What a merge method says about itself, once: validation, search bounds and docs read it."""

from __future__ import annotations

import math
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


shared = partial(Param, scope="shared")  # one value for the merge


def flag(name: str, meaning: str, *, default: bool) -> Param:
    """Return a parameter that is true or false, one for the merge."""
    return shared(name, meaning, default=default, choices=(True, False))


def required(base: Tensor | None) -> Tensor:
    """Return the base of a method that has one always."""
    assert base is not None
    return base


@dataclass(frozen=True)
class Cut:
    """Where a vector's entries are divided into small and large ones.

    Args:
        threshold: Smaller entries are on the small side, larger ones on the large side.
        place: Divides the entries that equal the threshold, by their place in the flat tensor.
    """

    threshold: float
    place: int


@dataclass(frozen=True)
class Inputs:
    """What a method gets for one output tensor.

    Args:
        models: ``(*shape)`` each, stored type, in recipe order, the base not among them unless the
            method takes no base.
        base: ``(*shape)`` in its stored type, or None.
        values: One mapping per entry of ``models``: the parameters of scope ``model``.
        shared: The parameters of scope ``shared``.
        keys: One 64-bit key per entry of ``models`` for its random mask; see
            ``numerics.bernoulli``.
        cuts: One per entry of ``models`` where whole task vectors are trimmed; none at all: the
            tensor is its model's whole task vector.
        once: Remembers what a study needs again and again; see :meth:`remembered`.
    """

    models: Sequence[Tensor]
    base: Tensor | None
    values: Sequence[Values]
    shared: Values
    keys: Sequence[int]
    cuts: Sequence[Cut | None] = ()
    once: Remember | None = None

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
    """Some entries of one tensor, as an entry function sees them.

    Args:
        models: Float32 each, of one shape.
        base: The same, or None.
        numbers: Plain floats, or tensors that broadcast over the block; these and flags, words and
            arrays as in :class:`Prepared`.
        places: The entries' places in the flat tensor, modulo ``2**32``, as int32; None where
            nothing is drawn.
    """

    models: Sequence[Tensor]
    base: Tensor | None
    numbers: Mapping[str, Sequence[float]]
    flags: tuple[Any, ...]
    words: Mapping[str, Sequence[int]]
    arrays: Mapping[str, Sequence[Tensor]]
    places: Tensor | None

    def deltas(self) -> list[Tensor]:
        """Return ``W_i - W_b`` for every model."""
        return [model - required(self.base) for model in self.models]


@dataclass(frozen=True)
class Prepared:
    """All that an entry function needs to know of a whole tensor.

    Args:
        numbers: Name -> floats, such as one weight per model.
        flags: What the entry function branches on; hashable.
        words: Name -> 32-bit integers, such as parts of mask keys.
        changes: ``(entry, numbers)`` pairs in order: from that flat place on these numbers hold.
        rows: Name -> tensors of ``(rows, 1)``: numbers of each row, what the last axis holds.
        columns: Name -> tensors of ``(1, columns)``: numbers of each column, what the first axis
            holds; not together with ``rows``.
        arrays: Name -> tensors of the tensor's own shape.
    """

    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    flags: tuple[Any, ...] = ()
    words: Mapping[str, Sequence[int]] = field(default_factory=dict)
    changes: Sequence[tuple[int, Mapping[str, Sequence[float]]]] = ()
    rows: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    arrays: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A merge method: functions plus facts; ``kernels.run.merge`` runs it.

    Either ``merge``, or ``prepare`` and ``entry``: then a tensor is merged block by block, in the
    cache, or by a fused kernel made from ``entry``.

    Args:
        name: As written under ``merge_method``.
        params: Every parameter that a recipe may give; the first number is the one that a
            one-dimensional search would turn.
        base: ``required``, ``optional``, or ``none``: the method has no use for one.
        models: Least and greatest number of models that go in, the base included; None: no limit.
        source: The paper, or what else the method comes from.
        merge: Gives the merged tensor, ``(*shape)`` float32, a new tensor.
        draws: Whether the result depends on random masks.
        prepare: Reads the whole tensors as far as it must: sums, thresholds, ranks.
        entry: Gives the merged block, float32; entry by entry, nothing of other entries goes in.
        once_ns: Nanoseconds that a study spends once, about, for an entry of each model beside the
            base: cuts, ranks, sums (``benchmarks/candidate_build.py``, two cores).
        once_bytes: Bytes that it keeps of it.
        formula: What comes out, in the notation of ``methods``; several lines where need be.
        when: When to choose it, a sentence or two.
        reference: The formula on whole tensors in plain torch: what kernels are held to.
    """

    name: str
    params: tuple[Param, ...]
    base: Literal["required", "optional", "none"]
    models: tuple[int, int | None]
    source: str
    merge: Callable[[Inputs], Tensor] | None = None
    draws: bool = False
    prepare: Callable[[Inputs], Prepared] | None = None
    entry: Callable[[Block], Tensor] | None = None
    once_ns: float = 0.0
    once_bytes: float = 0.0
    formula: str = ""
    when: str = ""
    reference: Callable[[Inputs], Tensor] | None = None

    def param(self, name: str) -> Param | None:
        """Return the parameter of that name, or None."""
        return next((param for param in self.params if param.name == name), None)

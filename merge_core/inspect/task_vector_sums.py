"""Sums over the task vectors of a plan, tensor by tensor, without a merge.

Every step takes from ``Execution`` what a method would get, so parents, adapters, vocabularies,
cuts and errors are those of the merge itself. What density keeps is told
from the parameters that a method declares, not from a table of methods.

d_i    (*shape) float32, task vector of model i: W_i minus what is measured from
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from operator import add
from typing import NamedTuple, TypeVar

from merge_core.contract import Inputs, Tensor
from merge_core.errors import NonFiniteError
from merge_core.kernels.threads import share
from merge_core.merge.execute import Execution
from merge_core.methods.shared.sparsify.largest import LARGEST
from merge_core.methods.shared.sparsify.middle import GAMMA, MIDDLE
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON, RANK_BERNOULLI
from merge_core.methods.shared.sparsify.rule import Rule, chosen
from merge_core.numerics.exact_sums import RUN, dot, l1
from merge_core.output.safetensors_writer import Watch
from merge_core.plan.steps import Plan, Step

BLOCK = 64 * RUN  # entries of which float32 copies are made at a time


class Vector(NamedTuple):
    """What adds up over tensors, of one task vector; ``kept``: after the recipe's density."""

    entries: float
    l1: float
    squares: float
    kept_entries: float
    kept_l1: float
    kept_squares: float
    base_squares: float  # of what it is measured from


class Product(NamedTuple):
    """What adds up over tensors, of two task vectors ``a`` and ``b``."""

    dot: float
    a_squares: float
    b_squares: float
    signed: float  # entries where both are not zero
    opposed: float  # those of different signs


T = TypeVar("T", Vector, Product)


@dataclass(frozen=True)
class Sums:
    """What adds up over tensors."""

    parameters: int = 0  # entries of the result
    bases: tuple[str, ...] = ()  # what is measured from: the base, or the model that stands for it
    vectors: dict[str, Vector] = field(default_factory=dict)  # by model
    products: dict[tuple[str, str], Product] = field(default_factory=dict)  # in recipe order

    def plus(self, other: Sums) -> Sums:
        """Return the sums over the tensors of both."""
        return Sums(
            self.parameters + other.parameters,
            tuple(dict.fromkeys([*self.bases, *other.bases])),
            self.vectors | {k: _added(self.vectors.get(k), x) for k, x in other.vectors.items()},
            self.products | {k: _added(self.products.get(k), x) for k, x in other.products.items()},
        )


def _added(a: T | None, b: T) -> T:
    return b if a is None else type(b)(*map(add, a, b))


def survey(plan: Plan, device: str | None = None, watch: Watch | None = None) -> dict[str, Sums]:
    """Return the sums of every tensor of the result by its name; of copies there are none.

    One whole task vector of one tensor is held at a time, and blocks of the others. The sums do not
    depend on the thread count.

    Args:
        plan: Of what would be merged.
        device: See ``Execution``.
        watch: Is told after each tensor how many bytes of the result are measured, and of how many.

    Raises:
        NonFiniteError: A model has NaN or infinite entries.
        ParameterError: The method refuses a density or an epsilon.
        CheckpointError: Whole-number tensors differ between the parents.
    """
    found = _Survey(plan, device)
    done, every = 0, sum(map(plan.bytes_of, plan.steps))
    sums = {}
    for step in plan.steps:
        sums[step.tensor] = found.sums(step)
        done += plan.bytes_of(step)
        if watch is not None:
            watch(done, every)
    return sums


class _Survey:
    """Adds up what a plan's method would merge."""

    def __init__(self, plan: Plan, device: str | None) -> None:
        self._plan = plan
        self._execution = Execution(plan, device=device)
        self._step = plan.steps[0]

    def sums(self, step: Step) -> Sums:
        if step.copied:
            self._execution.carry_out(step)
            return Sums()
        self._step = step
        return self._add_up(self._execution.inputs(step))

    def _add_up(self, inputs: Inputs) -> Sums:
        base, start, which = self._start(inputs)
        order = self._plan.recipe.names()
        which.sort(key=lambda i: order.index(self._step.operands[i].parent))
        names = [self._step.operands[i].parent for i in which]
        vectors, products = _streamed(base, [inputs.models[i] for i in which])
        for vector, name in zip(vectors, names, strict=True):
            if not math.isfinite(vector.base_squares + vector.squares):
                found = name if math.isfinite(vector.base_squares) else start
                where = f"{self._step.tensor}: {self._plan.method.name}"
                raise NonFiniteError(f"{where}: {found} has NaN or infinite entries")
        vectors = [self._trimmed(one, inputs, i) for one, i in zip(vectors, which, strict=True)]
        return Sums(
            math.prod(self._step.shape),
            (start,),
            dict(zip(names, vectors, strict=True)),
            dict(zip(combinations(names, 2), products, strict=True)),
        )

    def _start(self, inputs: Inputs) -> tuple[Tensor, str, list[int]]:
        """Return what task vectors are measured from, its name, and where the others stand."""
        if inputs.base is not None:
            assert self._step.base is not None
            return inputs.base, self._step.base.parent, list(range(len(inputs.models)))
        names = [operand.parent for operand in self._step.operands]
        base, listed = self._plan.recipe.base_model, self._plan.recipe.names()
        first = names.index(base if base in names else min(names, key=listed.index))
        others = [i for i in range(len(names)) if i != first]
        return inputs.models[first], names[first], others

    def _trimmed(self, whole: Vector, inputs: Inputs, i: int) -> Vector:
        """Return the sums with what density keeps of model ``i``."""
        values, method = inputs.values[i], self._plan.method
        density = float(values.get("density", 1.0))
        if density == 1:  # the methods, too, keep all then
            return whole
        if method.draws and EPSILON not in method.params:
            kept = (density * whole.entries, density * whole.l1, density * whole.squares)
        else:
            ranks, middle = EPSILON in method.params, GAMMA in method.params
            rule = RANK_BERNOULLI if ranks else MIDDLE if middle else LARGEST
            kept = _kept(inputs, rule, i)
            if method.draws:  # probabilities are spaced evenly around the density
                kept = (density * whole.entries, *kept[1:])
        return Vector(whole.entries, whole.l1, whole.squares, *kept, whole.base_squares)


def _kept(inputs: Inputs, rule: Rule, i: int) -> tuple[float, float, float]:
    """Return entries, L1 norm and squares of what stays; of ranks, what is to be expected."""
    entries, size, squares = 0, 0.0, 0.0
    for delta, stays in chosen(inputs, rule, i):
        left = delta * stays
        entries += int((stays > 0).sum())
        size += l1(left)
        squares += dot(left, delta)
    return entries, size, squares


def _streamed(base: Tensor, models: Sequence[Tensor]) -> tuple[list[Vector], list[Product]]:
    """Return the sums of every task vector, as if all stayed, and of every two of them."""
    flat, others = base.reshape(-1), [model.reshape(-1) for model in models]

    def block(start: int) -> tuple[list[Vector], list[Product]]:
        origin = flat[start : start + BLOCK].float()
        return _of_block(
            origin, [other[start : start + BLOCK].float() - origin for other in others]
        )

    starts = range(0, flat.numel(), BLOCK)
    found = share(block, starts) if flat.device.type == "cpu" else map(block, starts)
    vectors = [Vector(*[0.0] * 7)] * len(models)
    products = [Product(*[0.0] * 5)] * math.comb(len(models), 2)
    for some, pairs in found:  # in order
        vectors = [_added(a, b) for a, b in zip(vectors, some, strict=True)]
        products = [_added(a, b) for a, b in zip(products, pairs, strict=True)]
    return vectors, products


def _of_block(origin: Tensor, deltas: Sequence[Tensor]) -> tuple[list[Vector], list[Product]]:
    """Return the sums of a block of the vectors, ``(n,)`` float32 each."""
    square, squares = dot(origin, origin), [dot(d, d) for d in deltas]
    own = [(d.numel(), l1(d), x) for d, x in zip(deltas, squares, strict=True)]
    products = []
    for i, j in combinations(range(len(deltas)), 2):
        a, b = deltas[i], deltas[j]
        signed = (a != 0) & (b != 0)
        opposed = signed & ((a > 0) != (b > 0))
        counts = (int(signed.sum()), int(opposed.sum()))
        products.append(Product(dot(a, b), squares[i], squares[j], *counts))
    return [Vector(*x, *x, square) for x in own], products

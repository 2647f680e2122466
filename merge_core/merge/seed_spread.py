"""How far merges with other seeds are apart: one recipe, merged once for each seed, nothing kept.

t_s    what the merge of seed s changed: the result minus the base, or the result without a base
mean   of t_s over the seeds; spread^2 = sum_s |t_s - mean|^2 / (seeds - 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from merge_core.contract import Tensor
from merge_core.errors import ParameterError
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan as planned
from merge_core.numerics import weights_hash
from merge_core.plan.steps import Plan, Step
from merge_core.recipe.schema import Recipe

BLOCK = 2**22  # entries that are held in float64 at a time


@dataclass(frozen=True)
class Apart:
    """Squared lengths, of one tensor or of several together."""

    mean: float = 0.0  # |mean|^2
    around: float = 0.0  # sum_s |t_s - mean|^2
    seeds: int = 1

    def __add__(self, other: Apart) -> Apart:
        return Apart(self.mean + other.mean, self.around + other.around, other.seeds)

    @property
    def share(self) -> float:
        """The spread as a share of the mean's length: 0 where no mask is drawn."""
        spread = self.around / (self.seeds - 1)
        return math.sqrt(spread / self.mean) if self.mean else 0.0

    @property
    def cosine(self) -> float:
        """The mean product of two seeds' changes over the mean square of one: 1 if all are one."""
        every = self.around / self.seeds + self.mean
        two = self.mean - self.around / (self.seeds * (self.seeds - 1))
        return two / every if every else 1.0


@dataclass(frozen=True)
class Spread:
    """What a seed decides of a merge's weights.

    Args:
        seeds: Of the recipe, and those that follow.
        digests: Of the weights of each.
        tensors: Of the result, with how far the seeds are apart there.
    """

    seeds: tuple[int, ...]
    digests: tuple[str, ...]
    tensors: dict[str, Apart]

    @property
    def whole(self) -> Apart:
        """All tensors together."""
        return sum(self.tensors.values(), Apart())

    def kinds(self) -> dict[str, Apart]:
        """Return kind of tensor, such as ``q_proj``, over all layers -> how far seeds are apart."""
        found: dict[str, Apart] = {}
        for name, one in self.tensors.items():
            kind = name.removesuffix(".weight").rpartition(".")[2]
            found[kind] = found.get(kind, Apart()) + one
        return found


def seeded(recipe: Recipe, count: int) -> list[Recipe]:
    """Return a recipe with its own seed, and with the ``count - 1`` that follow.

    Documents that it refers to get as many more than their own.

    Raises:
        ParameterError: Fewer than two have no spread.
    """
    if count < 2:
        raise ParameterError(f"seeds: expected at least 2, got {count}: one has no spread")
    return [_moved(recipe, i) for i in range(count)]


def _moved(recipe: Recipe, by: int) -> Recipe:
    documents = tuple(_moved(document, by) for document in recipe.documents)
    return replace(recipe, seed=recipe.seed + by, documents=documents)


def spread(plan: Plan, count: int, progress: Callable[[int, int], None] | None = None) -> Spread:
    """Merge a plan's recipe with several seeds and measure how far the results are apart.

    Args:
        plan: Of the recipe; its parents stay open.
        count: Number of seeds, at least 2.
        progress: Is told how many tensors are done, and how many there are.

    Raises:
        ParameterError: There are too few seeds.
        MergeError: A tensor cannot be merged.
    """
    recipes = seeded(plan.recipe, count)
    plans = [planned(recipe, plan.opened) for recipe in recipes]
    executions = [Execution(one) for one in plans]
    found: dict[str, Apart] = {}
    for i, steps in enumerate(zip(*(one.steps for one in plans), strict=True)):
        pairs = list(zip(executions, steps, strict=True))
        made = (execution.carry_out(step) for execution, step in pairs)
        apart = _apart(made, _base(plan, steps[0]))
        if not steps[0].copied:
            found[steps[0].tensor] = apart
        if progress is not None:
            progress(i + 1, len(plan.steps))
    digests = [weights_hash.combined(x.digests.values(), plan.input_scales) for x in executions]
    return Spread(tuple(recipe.seed for recipe in recipes), tuple(digests), found)


def _base(plan: Plan, step: Step) -> Tensor | None:
    return None if step.base is None else plan.parents[step.base.parent].tensor(step.base.tensor)


def _apart(made: Iterator[Tensor], base: Tensor | None) -> Apart:
    """Return how far tensors are apart, of which one after the other is held (Welford's sums)."""
    import torch

    mean: Tensor | None = None
    around, count = 0.0, 0
    for tensor in made:
        flat, count = tensor.reshape(-1), count + 1
        if mean is None:
            mean = torch.zeros(len(flat), dtype=torch.float64)
        for part in _parts(len(flat)):
            off = flat[part].double() - mean[part]
            mean[part] += off / count
            around += float((off * (flat[part].double() - mean[part])).sum())
    assert mean is not None
    start = None if base is None else base.reshape(-1)
    squares = [mean[p] if start is None else mean[p] - start[p].double() for p in _parts(len(mean))]
    return Apart(sum(float((x * x).sum()) for x in squares), around, count)


def _parts(length: int) -> Sequence[slice]:
    return [slice(i, i + BLOCK) for i in range(0, length, BLOCK)]

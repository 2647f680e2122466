"""``trim: global``: what a trim of a parent's whole task vector keeps of every tensor.

A parent's task vector is looked through once for all densities of a hundredth and its multiples,
and what is found serves every tensor of every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from hashlib import sha256
from math import inf

from merge_core.contract import Cut, Tensor, required
from merge_core.errors import ParameterError
from merge_core.merge.statistics_cache import Known
from merge_core.methods.shared.sparsify.rule import PART
from merge_core.numerics import order_statistics
from merge_core.plan.steps import Operand, Step

Pair = tuple[Operand | None, Operand]  # base and model


class WholeVectors:
    """The cuts of the task vectors of one plan.

    Args:
        steps: The plan's; those without ``trim: global`` take no part.
        read: Gives a parent's tensor.
        known: Keeps what other plans on the same parents need again; None keeps nothing.
        let_go: Is called where what was read is not read again in this pass.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        read: Callable[[Operand], Tensor],
        known: Known | None,
        let_go: Callable[[], None],
    ) -> None:
        self._steps = [step for step in steps if step.shared.get("trim") == "global"]
        self._read, self._known, self._let_go = read, known, let_go
        self._found: dict[str, dict[str, Cut]] = {}  # parent -> output tensor -> what to keep

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names of all tensors that are trimmed together, hex."""
        return sha256(repr([(x.base, x.operands) for x in self._steps]).encode()).hexdigest()

    def cuts(self, step: Step) -> tuple[Cut, ...]:
        """Return the cut of each operand of a step of the plan; none if each is trimmed alone.

        Raises:
            ParameterError: A parent has several densities.
        """
        if step.shared.get("trim") != "global":
            return ()
        parents = [operand.parent for operand in step.operands]
        for parent in parents:
            if parent not in self._found:
                self._found[parent] = self._cuts_by_tensor(parent)
        return tuple(self._found[parent][step.tensor] for parent in parents)

    def _cuts_by_tensor(self, parent: str) -> dict[str, Cut]:
        of: list[Pair] = []
        names, sizes, densities = [], [], set()
        for step in self._steps:
            for operand, values in zip(step.operands, step.values, strict=True):
                if operand.parent == parent:
                    of.append((step.base, operand))
                    names.append(step.tensor)
                    sizes.append(step.entries)
                    densities.add(float(values["density"]))
        if len(densities) > 1:
            raise ParameterError(
                f"{parent}: trim: global takes one density for all tensors, got "
                f"{sorted(densities)}; use trim: tensor or one value"
            )
        cut = self._cut(of, sum(sizes), densities.pop())
        return dict(zip(names, order_statistics.shared_out(cut, sizes), strict=True))

    def _cut(self, of: Sequence[Pair], total: int, density: float) -> Cut:
        """Return the cut of a whole task vector; those of the grid are found at once and kept."""
        if density in (0, 1):
            return Cut(0.0, total) if density else Cut(inf, 0)
        place = order_statistics.first_kept(total, density)
        parts, known = partial(self._sizes, of), self._known
        find = partial(order_statistics.ranked, parts, first_equal_last=True)
        if known is None:
            return find([place])[0]
        grid, tensors = order_statistics.grid(total), tuple(x for pair in of for x in pair)
        if place not in grid:
            what = ("cut of the whole", sha256(repr(tensors).encode()).hexdigest())
            found: Cut = known.get(what, lambda: find([place])[0], place)
            return found
        several = known.of_tensors(
            "cuts of the whole", tensors, lambda: order_statistics.packed(grid, find(grid))
        )
        return required(order_statistics.looked_up(several, place))

    def _sizes(self, of: Sequence[Pair]) -> Iterator[Tensor]:
        """Yield ``|d|`` of the tensors, one after the other, in flat parts."""
        for base, operand in of:
            model, start = (self._read(x).reshape(-1) for x in (operand, required(base)))
            for place in range(0, model.numel(), PART):
                part = slice(place, place + PART)
                yield (model[part].float() - start[part].float()).abs_()
            self._let_go()

"""One step of a plan, carried out: parents' tensors in, the tensor that is written out.

Live candidates and exported folders both come from here, so they are the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from merge_core import whole_vector
from merge_core.errors import CheckpointError, NonFiniteError, ParameterError
from merge_core.layout import Operand
from merge_core.methods.declaration import Cut, Inputs
from merge_core.plan import Plan, Step

if TYPE_CHECKING:
    from torch import Tensor


class Execution:
    """Carries out the steps of one plan, in any order.

    Args:
        plan: Its parents stay open.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cuts: dict[str, dict[str, Cut]] = {}  # parent -> output tensor -> what to keep

    def carry_out(self, step: Step) -> Tensor:
        """Compute one output tensor in float32 and round it once.

        Returns:
            ``step.shape``, of type ``plan.dtype``, or as stored where the step copies.

        Raises:
            NonFiniteError: The result has NaN or infinite entries.
            ParameterError: The method refuses the parameters it has for this tensor.
            CheckpointError: Whole-number tensors differ between the parents.
        """
        import torch

        if step.copied:
            return self._copied(step)
        models = [self._read(operand) for operand in step.operands]
        base = None if step.base is None else self._read(step.base)
        cuts = self._cuts_of(step)
        inputs = Inputs(models, base, step.values, step.shared, step.keys, cuts)
        name = self._plan.method.name
        try:
            merged = self._plan.method.merge(inputs).to(getattr(torch, self._plan.dtype))
        except ParameterError as error:
            raise ParameterError(f"{step.tensor}: {error}") from error
        except NonFiniteError as error:
            raise NonFiniteError(f"{step.tensor}: {name}: {error}") from error
        ends = torch.aminmax(merged) if merged.numel() else ()  # nan anywhere is nan at both ends
        if not all(map(math.isfinite, ends)):
            raise NonFiniteError(
                f"{step.tensor}: the merge by {name!r} is not finite in {self._plan.dtype}; "
                f"parameters {[dict(v) for v in step.values]} {dict(step.shared)}"
            )
        return merged

    def _read(self, operand: Operand) -> Tensor:
        return self._plan.parents[operand.parent].tensor(operand.tensor)

    def _copied(self, step: Step) -> Tensor:
        first, *others = (self._read(operand) for operand in step.inputs())
        for other in others:
            if not bool(first.equal(other)):
                raise CheckpointError(
                    f"{step.tensor}: the parents' whole-number tensors differ and cannot be merged"
                )
        return first

    def _cuts_of(self, step: Step) -> tuple[Cut, ...]:
        if step.shared.get("trim") != "global":
            return ()
        return tuple(self._cut(operand.parent, step) for operand in step.operands)

    def _cut(self, parent: str, step: Step) -> Cut:
        if parent not in self._cuts:
            self._cuts[parent] = self._survey(parent)
        return self._cuts[parent][step.tensor]

    def _survey(self, parent: str) -> dict[str, Cut]:
        """Find what a trim of a parent's whole task vector keeps of every tensor.

        Raises:
            ParameterError: The density is not the same for all tensors.
        """
        steps = [
            (step, i)
            for step in self._plan.steps
            if step.shared.get("trim") == "global"
            for i, operand in enumerate(step.operands)
            if operand.parent == parent
        ]
        densities = {float(step.values[i]["density"]) for step, i in steps}
        if len(densities) > 1:
            raise ParameterError(
                f"{parent}: trim: global takes one density for all tensors, got "
                f"{sorted(densities)}; use trim: tensor or one value"
            )
        cuts = whole_vector.cuts(partial(self._deltas, steps), densities.pop())
        return {step.tensor: cut for (step, _), cut in zip(steps, cuts, strict=True)}

    def _deltas(self, steps: list[tuple[Step, int]]) -> Iterator[Tensor]:
        for step, i in steps:
            assert step.base is not None
            yield self._read(step.operands[i]).float() - self._read(step.base).float()

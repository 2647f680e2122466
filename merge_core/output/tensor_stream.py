"""A candidate whose weights live elsewhere: handed on tensor by tensor, never held here as a whole.

Every tensor is made anew for each candidate, also where it is the same as the last one's: who takes
them replaces all of them. They are those that a live model gets and a model folder holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from merge_core.architecture import model_class
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, MergeError
from merge_core.merge.execute import Execution, Merging
from merge_core.numerics import weights_hash
from merge_core.output import folded_scales
from merge_core.output.live_model import set_generation
from merge_core.plan.steps import Plan

Take = Callable[[Iterator[tuple[str, "Tensor"]]], None]


class Stream(Merging):
    """Makes the tensors of one recipe after another; its settings are those of ``Merging``."""

    def send(self, plan: Plan, take: Take) -> str:
        """Hand all tensors of a plan to ``take``, in the plan's order, one at a time.

        Args:
            plan: What to compute.
            take: Reads the iterator to its end. The iterator does not raise: after a tensor that
                cannot be merged the rest is zeros, so that the taker is left whole. A tensor is the
                taker's; one that is copied may be a parent's own memory and is not to be changed.

        Returns:
            The ``weights_digest``, the same as that of the live candidate.

        Raises:
            NonFiniteError: A merged tensor is not finite; the taker then holds no candidate.
            MergeError: A tensor cannot be merged; so, too.
            CheckpointError: ``take`` left tensors unread.
            ParameterError: Weights alone cannot say what layers' inputs are multiplied by.
        """
        errors: list[MergeError] = []
        with self.execution(plan, folded_scales.factors(plan)) as execution:
            take(_tensors(plan, execution, errors))
        if errors:
            raise errors[0]
        digests = execution.digests
        if len(digests) != len(plan.steps):
            raise CheckpointError(
                f"{len(plan.steps)} tensors were to be taken, {len(digests)} were"
            )
        return weights_hash.combined(digests.values(), plan.input_scales)


def _tensors(
    plan: Plan, execution: Execution, errors: list[MergeError]
) -> Iterator[tuple[str, Tensor]]:
    import torch

    for step in plan.steps:
        if not errors:
            try:
                tensor = execution.carry_out(step)
            except MergeError as error:
                errors.append(error)
        if errors:
            tensor = torch.zeros(step.shape, dtype=getattr(torch, plan.dtype))
        yield step.tensor, tensor


def shell(plan: Plan) -> Any:
    """Return the transformers model of a plan without weights, for its config and its shapes.

    Raises:
        CheckpointError: transformers makes none.
    """
    import torch

    config = model_class.checked(plan.config, plan.config_from)
    model = model_class.shell(config, dtype=getattr(torch, plan.dtype))
    set_generation(model, plan.parents[plan.tokens_from].folder)
    return model.eval()

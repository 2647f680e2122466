"""One step of a plan, carried out: parents' tensors in, the tensor that is written out.

Live candidates and exported folders both come from here, so they are the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from merge_core.errors import CheckpointError, NonFiniteError, ParameterError
from merge_core.methods.declaration import Inputs
from merge_core.parent import Parent
from merge_core.plan import Plan, Step

if TYPE_CHECKING:
    from torch import Tensor


def carry_out(plan: Plan, step: Step, parents: Mapping[str, Parent]) -> Tensor:
    """Compute one output tensor in float32 and round it once.

    Returns:
        ``step.shape``, of type ``plan.dtype``, or as stored where the step copies.

    Raises:
        NonFiniteError: The result has NaN or infinite entries.
        ParameterError: The method refuses the parameters it has for this tensor.
        CheckpointError: Whole-number tensors differ between the parents.
    """
    import torch

    models = [parents[name].tensor(step.tensor) for name in plan.sources]
    base = parents[plan.base].tensor(step.tensor) if plan.base is not None else None
    if step.copied:
        return _copied(plan, step, [*([base] if base is not None else []), *models])
    inputs = Inputs(models, base, step.values, step.shared, step.keys)
    try:
        merged = plan.method.merge(inputs).to(getattr(torch, plan.dtype))
    except ParameterError as error:
        raise ParameterError(f"{step.tensor}: {error}") from error
    ends = torch.aminmax(merged) if merged.numel() else ()  # nan anywhere is nan at both ends
    if not all(map(math.isfinite, ends)):
        raise NonFiniteError(
            f"{step.tensor}: the merge by {plan.method.name!r} is not finite in {plan.dtype}; "
            f"parameters {[dict(v) for v in step.values]} {dict(step.shared)}"
        )
    return merged


def _copied(plan: Plan, step: Step, tensors: list[Tensor]) -> Tensor:
    for other in tensors[1:]:
        if not bool(tensors[0].equal(other)):
            raise CheckpointError(
                f"{step.tensor}: the parents' whole-number tensors differ and cannot be merged"
            )
    return tensors[0]

"""How a loss changes with a live candidate's parameters, tensor by tensor, while backward runs.

    dL / d value = sum over entries of  dL / dW * dW / d value

needs the gradient of one weight at a time: as soon as backward has it, it is multiplied out with
what the method makes of its parents (``kernels.gradients``), and freed. So a step costs the memory
of one weight's gradient, never that of all of them or of a task vector. Where backward runs several
times (micro-batches) the products add up. Source of the idea: AdaMerging, arXiv:2310.02575, which
keeps all task vectors in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from merge_core.contract import Tensor
from merge_core.kernels.gradients import Gradients, of_parameters
from merge_core.merge.execute import Execution
from merge_core.output.live_views import Place
from merge_core.plan.steps import Plan, Step


@contextmanager
def collected(
    model: Any, places: Mapping[str, Place], plan: Plan, execution: Execution
) -> Iterator[dict[str, Gradients]]:
    """Collect gradients by the plan's values, of every loss whose ``backward`` runs inside.

    Args:
        model: The live model; it holds the plan's weights. Its weights' gradients are None before
            and after.
        places: What of the live weights each stored tensor fills.
        plan: Of these weights; its method has smooth parameters.
        execution: Of the plan.

    Yields:
        Stored tensor -> gradients by its values, of the losses so far. Absent: no loss depends on
        the tensor, or it is copied.

    Raises:
        ParameterError: The method has no smooth parameters.
    """
    found: dict[str, Gradients] = {}
    was = {p: p.requires_grad for p in model.parameters()}
    fills = _fills(model, places, [step for step in plan.steps if not step.copied])
    handles = []
    try:
        for parameter in was:
            parameter.requires_grad_(parameter in fills)
        for parameter, steps in fills.items():
            hook = _hook(plan, execution, places, steps, found)
            handles.append(parameter.register_post_accumulate_grad_hook(hook))
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for parameter, required in was.items():
            parameter.grad = None
            parameter.requires_grad_(required)


def _fills(model: Any, places: Mapping[str, Place], steps: list[Step]) -> dict[Any, list[Step]]:
    """Return which steps fill each live parameter; buffers are none, and have no gradient."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[Any, list[Step]] = defaultdict(list)
    for step in steps:
        parameter = parameters.get(places[step.tensor].live)
        if parameter is not None and parameter.is_floating_point():
            found[parameter].append(step)
    return found


def _hook(
    plan: Plan,
    execution: Execution,
    places: Mapping[str, Place],
    steps: list[Step],
    found: dict[str, Gradients],
) -> Callable[[Any], None]:
    def multiply_out(parameter: Any) -> None:
        import torch

        with torch.no_grad():
            gradient = _laid_out_as(parameter)
            for step in steps:
                part = places[step.tensor].of(gradient)
                inputs = execution.inputs(step)  # merges run where the parents' tensors are
                new = of_parameters(plan.method, inputs, part.to(inputs.models[0].device))
                found[step.tensor] = found[step.tensor] + new if step.tensor in found else new
        parameter.grad = None

    return multiply_out


def _laid_out_as(parameter: Any) -> Tensor:
    """Return a parameter's gradient with the parameter's own strides."""
    gradient: Tensor = parameter.grad
    if gradient.stride() == parameter.stride():
        return gradient
    laid: Tensor = parameter.new_empty_strided(parameter.shape, parameter.stride())
    return laid.copy_(gradient)

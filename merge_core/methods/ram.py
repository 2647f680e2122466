"""Entries that one model changed are taken whole; those that several changed are averaged."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, required
from merge_core.methods.shared.active import EPSILON, changes, counted
from merge_core.methods.shared.weighted_sum import summed


def _entry(block: Block) -> Tensor:
    deltas, active, count = counted(block)
    mixed = summed([delta * where for delta, where in zip(deltas, active, strict=True)])
    return mixed / count.clamp(min=1) + required(block.base)


def reference(inputs: Inputs) -> Tensor:
    """Return the base and the mean of the changes that are some, in float32."""
    deltas, active = changes(inputs)
    return (deltas * active).sum(0) / active.sum(0).clamp(min=1) + required(inputs.base)


METHOD = Method(
    name="ram",
    reference=reference,
    formula="a_i = [|d_i| > epsilon] of each entry\nout = W_b + sum_i a_i d_i / max(1, sum_i a_i)",
    about=(
        "Reinforced Agent Merging (Yuan et al., 2026) is made for models from reinforcement "
        "learning, which changes few weights, and for each task mostly others. A plain mean "
        "divides what one model alone has changed by the number of models. Here each entry is "
        "averaged over the models that changed it by more than epsilon, so a change of one model "
        "comes through whole."
    ),
    when="Models tuned by reinforcement learning, which change few entries and seldom the same: "
    "what one model alone changed is not thinned out by the others.",
    prepare=lambda inputs: Prepared({"epsilon": [inputs.number("epsilon")]}),
    entry=_entry,
    params=(EPSILON,),
    base="required",
    models=(2, None),
    source="arXiv:2601.13572",
)

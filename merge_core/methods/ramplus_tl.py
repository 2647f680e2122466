"""RAM, with what only one model changed made stronger the more that model shares with others."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, required, shared
from merge_core.kernels.eager import flat_blocks
from merge_core.methods.shared.active import EPSILON, changes, counted
from merge_core.methods.shared.weighted_sum import summed


def _prepare(inputs: Inputs) -> Prepared:
    """Return the boost of each model's own changes."""
    epsilon, every = inputs.number("epsilon"), range(len(inputs.models))
    numbers = {"epsilon": [epsilon]}
    counts = inputs.remembered(
        ("overlaps", epsilon), every, lambda: _overlaps(inputs, Prepared(numbers))
    )
    boosts = []
    for both, alone in counts:
        least = max(alone, epsilon) or 1  # none alone: no matter what
        boosts.append(inputs.number("r") * min(max(both / least, 0.0), inputs.number("alpha")))
    return Prepared({**numbers, "boost": boosts})


def _overlaps(inputs: Inputs, prepared: Prepared) -> list[tuple[int, int]]:
    """Return, for every model, the entries changed with others and those changed alone."""
    found = [(0, 0)] * len(inputs.models)
    for block in flat_blocks(inputs, prepared):
        _, active, count = counted(block)
        for i, where in enumerate(active):
            both = int((where * (count > 1)).sum())
            found[i] = (found[i][0] + both, found[i][1] + int(where.sum()) - both)
    return found


def _entry(block: Block) -> Tensor:
    deltas, active, count = counted(block)
    alone = (count == 1).float()
    terms = [
        delta * where * (alone * boost + 1)
        for delta, where, boost in zip(deltas, active, block.numbers["boost"], strict=True)
    ]
    return summed(terms) / count.clamp(min=1) + required(block.base)


def reference(inputs: Inputs) -> Tensor:
    """Return the base and the mean of the changes, lone ones made stronger, in float32."""
    import torch

    deltas, active = changes(inputs)
    count = active.sum(0)
    alone = active & (count == 1)
    unique = alone.flatten(1).sum(1)
    both = active.flatten(1).sum(1) - unique
    overlap = (both / unique.clamp(min=inputs.number("epsilon"))).clamp(0, inputs.number("alpha"))
    boost = (1 + inputs.number("r") * overlap).reshape(-1, *[1] * (deltas.dim() - 1))
    terms = torch.where(alone, deltas * boost, deltas) * active
    return terms.sum(0) / count.clamp(min=1) + required(inputs.base)


METHOD = Method(
    name="ramplus_tl",
    reference=reference,
    formula="a_i = [|d_i| > epsilon], u_i = a_i [sum_j a_j = 1] of each entry\n"
    "b_i = r min(alpha, sum (a_i - u_i) / sum u_i), sums over the tensor's entries\n"
    "out = W_b + sum_i a_i (1 + b_i u_i) d_i / max(1, sum_i a_i)",
    about=(
        "RAM+ at the level of tensors (Yuan et al., 2026): as ram, and what a single model "
        "changed is also multiplied by 1 + b, with b growing with the share of the model's "
        "changes that it has in common with others, up to r alpha. What averaging takes from a "
        "model where it shares, it gets back where it stands alone."
    ),
    when="As ram, where models share so many changes that averaging these weakens each of them: "
    "what a model changed alone makes up for it.",
    prepare=_prepare,
    entry=_entry,
    params=(
        shared("r", "strength of the boost", 0, 1, minimum=0, default=0.1),
        shared("alpha", "greatest overlap that counts", 0, 1, minimum=0, default=0.2),
        EPSILON,
    ),
    base="required",
    models=(2, None),
    source="arXiv:2601.13572",
    once_ns=3.2,
)

"""Select where the models disagree most, weigh them by their change there, erase minorities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from merge_core.contract import Block, Cut, Inputs, Method, Prepared, Tensor, required, shared
from merge_core.kernels.eager import flat_blocks
from merge_core.methods.shared.elect import elect
from merge_core.methods.shared.task_vectors import INT8_MASK
from merge_core.methods.shared.weighted_sum import summed, weighted
from merge_core.numerics.exact_sums import RUN
from merge_core.numerics.order_statistics import above, ranked

TOPK = "share of the entries that differ between models to work on"


def _prepare(inputs: Inputs) -> Prepared:
    """Return each model's weight, and the least variance that stays."""
    share = inputs.number("select_topk")
    everything = range(len(inputs.models))
    cut = inputs.remembered(("variance", share), everything, lambda: _cut(inputs, share))
    changes = [(cut.place, {"least": [above(cut.threshold)]})] if cut.place else []
    chosen = Prepared({"least": [cut.threshold]}, (share < 1,), changes=changes)
    squares = inputs.remembered(("squares", share), everything, lambda: _squares(inputs, chosen))
    total = sum(squares)
    weights = [x / total for x in squares] if total >= 1e-6 else [1 / len(squares)] * len(squares)
    return replace(chosen, numbers={**chosen.numbers, "weight": weights})


def _cut(inputs: Inputs, share: float) -> Cut:
    if share >= 1:
        return Cut(0.0, 0)

    def variances() -> Iterator[Tensor]:
        for block in flat_blocks(inputs, Prepared(), 2**20):
            yield _variance(block.deltas())

    changed = sum(int((part != 0).sum()) for part in variances())
    count, n = math.floor(share * changed), inputs.models[0].numel()
    if count == 0:
        return Cut(math.inf, 0)
    (cut,) = ranked(variances, [n - count], first_equal_last=True)
    return cut


def _variance(deltas: Sequence[Tensor]) -> Tensor:
    """Return the population variance over the models, entry by entry."""
    k = len(deltas)
    mean = weighted(deltas, [1 / k] * k)
    return weighted([(delta - mean) * (delta - mean) for delta in deltas], [1 / k] * k)


def _selected(block: Block) -> list[Tensor]:
    import torch

    deltas = block.deltas()
    if not block.flags[0]:
        return deltas
    unchosen = _variance(deltas) < block.numbers["least"][0]  # nan is chosen, and so not hidden
    return [torch.where(unchosen, 0.0, delta) for delta in deltas]


def _squares(inputs: Inputs, chosen: Prepared) -> list[float]:
    """Return the mean square of what is left of every task vector."""
    sums = [0.0] * len(inputs.models)
    for block in flat_blocks(inputs, chosen, RUN):
        for i, delta in enumerate(_selected(block)):
            sums[i] += float((delta.double() * delta.double()).sum())
    return [x / max(inputs.models[0].numel(), 1) for x in sums]


def _entry(block: Block) -> Tensor:
    import torch

    deltas, weights = _selected(block), block.numbers["weight"]
    sign = elect(deltas, count=False)
    agreeing = [(delta * sign).relu() for delta in deltas]
    took_part = [
        torch.where(x > 0, weight, 0.0) for x, weight in zip(agreeing, weights, strict=True)
    ]
    mixed = weighted(agreeing, weights) / summed(took_part).clamp(min=1e-6)
    return mixed * sign + required(block.base)


def reference(inputs: Inputs) -> Tensor:
    """Return what is selected, weighed and not erased, added to the base, in float32."""
    import torch

    deltas, share = torch.stack(inputs.deltas()), inputs.number("select_topk")
    if share < 1:
        variance = _variance(deltas.unbind()).flatten()
        count = math.floor(share * int((variance != 0).sum()))
        erased = variance.argsort(descending=True, stable=True)[count:]
        deltas.flatten(1)[:, erased] = 0
    squares = (deltas * deltas).flatten(1).mean(1)
    weights = squares / squares.sum() if squares.sum() >= 1e-6 else squares * 0 + 1 / len(squares)
    sign = torch.where(deltas.sum(0) >= 0, 1, -1)
    shares = weights.reshape(-1, *[1] * sign.dim()) * (deltas * sign > 0)
    return (shares * deltas).sum(0) / shares.sum(0).clamp(min=1e-6) + required(inputs.base)


METHOD = Method(
    name="sce",
    reference=reference,
    formula="select: d_i only where the variance over the models is among the largest select_topk\n"
    "calculate: w_i = |d_i|^2 / sum_j |d_j|^2, of what is left\n"
    "erase: m_i = [d_i has the sign of sum_j d_j] of each entry, a sum of zero counts as plus\n"
    "out = W_b + sum_i w_i m_i d_i / sum_i w_i m_i",
    about=(
        "The merge of FuseChat (Wan et al., 2024) in three steps. Select: only entries that vary "
        "most between the models are worked on. Calculate: each model's weight in a tensor is its "
        "share of the squared changes there. Erase: in each entry the models whose sign is not "
        "that of the sum are left out, and the others averaged by their weights. There are no "
        "weights to tune, only select_topk."
    ),
    when="Models of one base tuned on different data, such as chat models of several teachers "
    "(FuseChat): it finds each tensor's weights by itself, from how much each model changed.",
    prepare=_prepare,
    entry=_entry,
    params=(
        shared("select_topk", TOPK, 0.05, 1, above=0, maximum=1, default=1.0),
        INT8_MASK,
    ),
    base="required",
    models=(2, None),
    source="arXiv:2408.07990",
    once_ns=3,
)

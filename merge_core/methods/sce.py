"""Select where the models disagree most, weigh them by their change there, erase minorities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from merge_core.contract import Block, Cut, Inputs, Method, Param, Prepared
from merge_core.kernels.eager import flat_blocks
from merge_core.methods.shared.task_vectors import INT8_MASK
from merge_core.methods.shared.weighted_sum import summed, weighted
from merge_core.numerics.exact_sums import RUN
from merge_core.numerics.order_statistics import above, ranked

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return each model's weight, and the least variance that stays.

    Where ``select_topk < 1``, only the share ``select_topk`` of those entries stay whose variance
    over the models is not zero, the most variable ones. A model's weight is the mean square of what
    is left of ``d_i``, relative to all models (alike where all are below 1e-6).
    """
    share = inputs.number("select_topk")
    everything = range(len(inputs.models))
    cut = inputs.remembered(("variance", share), everything, lambda: _cut(inputs, share))
    chosen = Prepared({"least": [cut.threshold]}, (share < 1,), changes=_changes(cut))
    squares = inputs.remembered(("squares", share), everything, lambda: _squares(inputs, chosen))
    total = sum(squares)
    weights = [x / total for x in squares] if total >= 1e-6 else [1 / len(squares)] * len(squares)
    numbers = {**chosen.numbers, "weight": weights}
    return Prepared(numbers, chosen.flags, changes=chosen.changes)


def _changes(cut: Cut) -> list[tuple[int, dict[str, list[float]]]]:
    return [(cut.place, {"least": [above(cut.threshold)]})] if cut.place else []


def _cut(inputs: Inputs, share: float) -> Cut:
    if share >= 1:
        return Cut(0.0, 0)

    def variances() -> Iterator[Tensor]:
        for _, block in flat_blocks(inputs, Prepared(), 2**20):
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
    for _, block in flat_blocks(inputs, chosen, RUN):
        for i, delta in enumerate(_selected(block)):
            sums[i] += float((delta.double() * delta.double()).sum())
    return [x / max(inputs.models[0].numel(), 1) for x in sums]


def _entry(block: Block) -> Tensor:
    """``out = W_b + sum_i w_i m_i d_i / max(sum_i w_i m_i, 1e-6)``, per entry.

    ``m_i`` drops entries whose sign is not that of ``sum_i d_i`` (zero counts as plus).
    """
    import torch

    assert block.base is not None
    deltas, weights = _selected(block), block.numbers["weight"]
    sign = torch.where(summed(deltas) >= 0, 1.0, -1.0)
    agreeing = [(delta * sign).relu() for delta in deltas]
    took_part = [
        torch.where(x > 0, weight, 0.0) for x, weight in zip(agreeing, weights, strict=True)
    ]
    mixed = weighted(agreeing, weights) / summed(took_part).clamp(min=1e-6)
    return mixed * sign + block.base


METHOD = Method(
    name="sce",
    prepare=_prepare,
    entry=_entry,
    params=(
        Param(
            "select_topk",
            "share of the entries that differ between models to work on",
            low=0.05,
            high=1,
            above=0,
            maximum=1,
            default=1.0,
            scope="shared",
        ),
        INT8_MASK,
    ),
    base="required",
    models=(2, None),
    source="arXiv:2408.07990",
    once_ns=3,
)

"""RAM, with what only one model changed made stronger the more that model shares with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Param, Prepared
from merge_core.kernels.eager import flat_blocks
from merge_core.methods.shared.active import counted, epsilon
from merge_core.methods.shared.weighted_sum import summed

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return the boost of each model's own changes: ``r clamp(shared_i/unique_i, 0, alpha)``.

    ``shared_i`` and ``unique_i`` count, in this tensor, the entries that model ``i`` changed
    together with others and alone.
    """
    epsilon_of = inputs.number("epsilon")
    numbers = {"epsilon": [epsilon_of]}
    counts = inputs.remembered(
        ("overlaps", epsilon_of),
        range(len(inputs.models)),
        lambda: _overlaps(inputs, Prepared(numbers)),
    )
    boosts = []
    for shared, unique in counts:
        least = max(unique, epsilon_of) or 1  # none alone: no matter what
        boosts.append(inputs.number("r") * min(max(shared / least, 0.0), inputs.number("alpha")))
    return Prepared({**numbers, "boost": boosts})


def _overlaps(inputs: Inputs, prepared: Prepared) -> list[tuple[int, int]]:
    """Return, for every model, the entries changed with others and those changed alone."""
    found = [(0, 0)] * len(inputs.models)
    for _, block in flat_blocks(inputs, prepared):
        _, active, count = counted(block)
        for i, where in enumerate(active):
            both = int((where * (count > 1)).sum())
            found[i] = (found[i][0] + both, found[i][1] + int(where.sum()) - both)
    return found


def _entry(block: Block) -> Tensor:
    """As ``ram``, what only model ``i`` changed times ``1 + boost_i``."""
    assert block.base is not None
    deltas, active, count = counted(block)
    alone = (count == 1).float()
    terms = [
        delta * where * (alone * boost + 1)
        for delta, where, boost in zip(deltas, active, block.numbers["boost"], strict=True)
    ]
    return summed(terms) / count.clamp(min=1) + block.base


METHOD = Method(
    name="ramplus_tl",
    prepare=_prepare,
    entry=_entry,
    params=(
        Param("r", "strength of the boost", low=0, high=1, minimum=0, default=0.1, scope="shared"),
        Param(
            "alpha",
            "greatest overlap that counts",
            low=0,
            high=1,
            minimum=0,
            default=0.2,
            scope="shared",
        ),
        epsilon(),
    ),
    base="required",
    models=(2, None),
    source="arXiv:2601.13572",
    once_ns=3.2,
)

"""Entries that one model changed are taken whole; those that several changed are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Prepared
from merge_core.methods.shared.active import counted, epsilon
from merge_core.methods.shared.weighted_sum import summed

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Take the least change."""
    return Prepared({"epsilon": [inputs.number("epsilon")]})


def _entry(block: Block) -> Tensor:
    """``out = W_b + sum_i a_i d_i / max(1, sum_i a_i)``, ``a_i`` where ``|d_i| > epsilon``."""
    assert block.base is not None
    deltas, active, count = counted(block)
    mixed = summed([delta * where for delta, where in zip(deltas, active, strict=True)])
    return mixed / count.clamp(min=1) + block.base


METHOD = Method(
    name="ram",
    prepare=_prepare,
    entry=_entry,
    params=(epsilon(),),
    base="required",
    models=(2, None),
    source="arXiv:2601.13572",
)

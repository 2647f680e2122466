"""Entries that one model changed are taken whole; those that several changed are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.active import counted, epsilon
from merge_core.methods.declaration import Inputs, Method

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + sum_i a_i d_i / max(1, sum_i a_i)``, ``a_i`` where ``|d_i| > epsilon``.

    Returns:
        ``(*shape)`` float32.
    """
    assert inputs.base is not None
    deltas, active, count = counted(inputs)
    mixed = count.new_zeros(count.shape)
    for delta, where in zip(deltas, active, strict=True):
        mixed += delta * where
    return (mixed / count.clamp_(min=1)).add_(inputs.base.float())


METHOD = Method(
    name="ram",
    merge=_merge,
    params=(epsilon(),),
    base="required",
    models=(2, None),
    reference="arXiv:2601.13572",
)

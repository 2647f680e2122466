"""Adds weighted task vectors to the base: addition, and with negative weights forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.task_vectors import INT8_MASK, LAMBDA, WEIGHT, merged, normalize

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + lambda * sum_i weight_i d_i``. Returns ``(*shape)`` float32."""
    return merged(inputs, inputs.deltas(), elect=False)


METHOD = Method(
    name="task_arithmetic",
    merge=_merge,
    params=(WEIGHT, normalize(False), LAMBDA, INT8_MASK),
    base="required",
    models=(1, None),
    reference="arXiv:2212.04089",
)

"""Takes over the entries that changed most in rows whose distribution changed most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.reduction import kth_smallest
from merge_core.rows import rows_of

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + d_1`` where ``importance >= median + 1.5 (Q3 - Q1)``, else ``W_b``.

    ``importance = |d_1| KL(softmax(W_1) || softmax(W_b))`` with the softmax along the last axis and
    one divergence per row; quantiles are the sorted entry at ``floor(q (n - 1))`` over the whole
    tensor, exact at every size (mergekit samples above a million entries).

    Returns:
        ``(*shape)`` float32.
    """
    assert inputs.base is not None
    base, model = inputs.base.float(), inputs.models[0].float()
    delta = model - base
    p = rows_of(model, True).softmax(-1) + 1e-8
    q = rows_of(base, True).softmax(-1) + 1e-8
    divergence = (p.double() * (p / q).log().double()).sum(-1).float()
    importance = rows_of(delta.abs(), True) * divergence.unsqueeze(-1)
    flat = importance.reshape(-1)
    low, middle, high = (_quantile(flat, share) for share in (0.25, 0.5, 0.75))
    keep = importance >= middle + 1.5 * (high - low)
    return base + delta * keep.reshape(delta.shape)


def _quantile(flat: Tensor, share: float) -> float:
    return kth_smallest(flat, math.floor(share * (flat.numel() - 1)))


METHOD = Method(
    name="arcee_fusion",
    merge=_merge,
    params=(),
    base="required",
    models=(2, 2),
    reference="https://arcee.ai",
)

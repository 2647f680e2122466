"""Select where the models disagree most, weigh them by their change there, erase minorities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.methods.sparsify import first_largest
from merge_core.methods.task_vectors import INT8_MASK, agreeing
from merge_core.reduction import dot

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + sum_i w_i m_i d_i / max(sum_i w_i m_i, 1e-6)``, per entry.

    First, where ``select_topk < 1``, only the share ``select_topk`` of those entries stay whose
    variance over the models is not zero, the most variable ones. ``w_i`` is the mean square of what
    is left of ``d_i``, relative to all models (alike where all are below 1e-6); ``m_i`` drops
    entries whose sign is not that of ``sum_i d_i`` (zero counts as plus).

    Returns:
        ``(*shape)`` float32.
    """
    assert inputs.base is not None
    deltas = inputs.deltas()
    share = inputs.number("select_topk")
    if share < 1:
        keep = _most_variable(deltas, share)
        deltas = [delta * keep for delta in deltas]
    weights = _weights(deltas)
    mixed = deltas[0].new_zeros(deltas[0].shape)
    divisor = mixed.clone()
    for delta, weight, stays in zip(deltas, weights, agreeing(deltas), strict=True):
        mixed += delta * stays * weight
        divisor += stays * weight
    return (mixed / divisor.clamp_(min=1e-6)).add_(inputs.base.float())


def _most_variable(deltas: list[Tensor], share: float) -> Tensor:
    """Return the entries of greatest population variance over the models: ``(*shape)`` bool."""
    k = len(deltas)
    mean = deltas[0] * (1 / k)
    for delta in deltas[1:]:
        mean += delta * (1 / k)
    variance = mean.new_zeros(mean.shape)
    for delta in deltas:
        variance += (delta - mean) ** 2 * (1 / k)
    count = math.floor(share * int((variance != 0).sum()))
    return first_largest(variance, count)


def _weights(deltas: list[Tensor]) -> list[float]:
    squares = [dot(delta, delta) / max(delta.numel(), 1) for delta in deltas]
    total = sum(squares)
    if total < 1e-6:
        return [1 / len(deltas)] * len(deltas)
    return [square / total for square in squares]


METHOD = Method(
    name="sce",
    merge=_merge,
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
    reference="arXiv:2408.07990",
)

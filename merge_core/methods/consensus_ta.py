"""Adds task vectors only where several models need the entry: TALL masks and their consensus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.methods.task_vectors import LAMBDA, WEIGHT, onto_base, summed

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + lambda * d [sum_i m_i >= agreement]``, per entry, ``d = sum_i weight_i d_i``.

    ``m_i`` is model i's mask: where ``|d_i| >= tall_lambda_i |d - d_i|``, its own change against
    that of the others. Entries that one model alone needs ("selfish") or none ("catastrophic")
    go, where ``agreement`` is 2; with more than there are models all go.

    Returns:
        ``(*shape)`` float32.

    Source: TALL masks and Consensus Merging, arXiv:2405.07813; there ``weight`` is 1.
    """
    deltas = inputs.deltas()
    total = summed(deltas, inputs.numbers("weight"))
    masks = total.new_zeros(total.shape)
    for delta, factor in zip(deltas, inputs.numbers("tall_lambda"), strict=True):
        masks += delta.abs() >= (total - delta).abs() * factor
    return onto_base(inputs, total * (masks >= round(inputs.number("agreement"))))


METHOD = Method(
    name="consensus_ta",
    merge=_merge,
    params=(
        WEIGHT,
        Param(
            "tall_lambda",
            "how much of the others' change a model's own must reach to be in its mask",
            low=0.2,
            high=0.6,
            minimum=0,
            default=0.4,
        ),
        Param(
            "agreement",
            "least number of masks that an entry must be in; whole",
            low=1,
            high=4,
            minimum=1,
            default=2,
            scope="shared",
        ),
        LAMBDA,
    ),
    base="required",
    models=(2, None),
    reference="arXiv:2405.07813",
)

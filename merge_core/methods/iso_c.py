"""Sums task vectors, then makes every direction of the sum's span equally strong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.svd_merge import WEIGHT, entry, prepared
from merge_core.methods.shared.task_vectors import LAMBDA
from merge_core.methods.shared.weighted_sum import weighted
from merge_core.numerics.svd import decomposed, product

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return the direction ``sigma U V^T`` from ``sum_i weight_i d_i = U diag(s) V^T``.

    ``sigma`` is the mean of the singular values ``s``; those of zero, whose directions are
    arbitrary, are left out of both. A tensor that is no matrix gets ``lambda`` times the mean of
    the ``weight_i d_i``, as in the authors' program.

    Raises:
        NonFiniteError: A matrix has NaN or infinite entries.

    Source: Iso-C, arXiv:2502.04959; there ``weight`` is 1, and zeros count in the mean.
    """
    weights = inputs.numbers("weight")
    every = range(len(weights))
    direction = inputs.remembered("direction", every, lambda: _direction(inputs), tuple(weights))
    return prepared(inputs, [direction], [1.0])


def _direction(inputs: Inputs) -> Tensor:
    summed = weighted(inputs.deltas(), inputs.numbers("weight"))
    if summed.dim() != 2:
        return summed / len(inputs.models)
    u, s, vt = decomposed(summed)
    sigma = float(s.sum()) / max(1, len(s))
    return (product(u, vt) * sigma).float()


METHOD = Method(
    name="iso_c",
    prepare=_prepare,
    entry=entry,
    params=(LAMBDA, WEIGHT),
    base="required",
    models=(2, None),
    source="arXiv:2502.04959",
)

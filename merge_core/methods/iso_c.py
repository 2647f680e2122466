"""Sums task vectors, then makes every direction of the sum's span equally strong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.singular import WEIGHT, decomposed, mean, product
from merge_core.methods.task_vectors import LAMBDA, onto_base, summed

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + lambda * sigma U V^T`` from ``sum_i weight_i d_i = U diag(s) V^T``.

    ``sigma`` is the mean of the singular values ``s``; those of zero, whose directions are
    arbitrary, are left out of both. A tensor that is no matrix gets ``lambda`` times the mean of
    the ``weight_i d_i``, as in the authors' program.

    Returns:
        ``(*shape)`` float32.

    Raises:
        NonFiniteError: A matrix has NaN or infinite entries.

    Source: Iso-C, arXiv:2502.04959; there ``weight`` is 1, and zeros count in the mean.
    """
    assert inputs.base is not None
    if inputs.base.dim() != 2:
        return onto_base(inputs, mean(inputs))
    u, s, vt = decomposed(summed(inputs.deltas(), inputs.numbers("weight")))
    sigma = float(s.sum()) / max(1, len(s))
    return onto_base(inputs, (product(u, vt) * sigma).float())


METHOD = Method(
    name="iso_c",
    merge=_merge,
    params=(LAMBDA, WEIGHT),
    base="required",
    models=(2, None),
    reference="arXiv:2502.04959",
)

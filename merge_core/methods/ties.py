"""Trim, elect sign, merge: of each task vector the largest entries, if they agree in sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import largest, masked, rescale
from merge_core.methods.task_vectors import (
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    density,
    merged,
    normalize,
)

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Trim ``d_i`` to its ``density`` of largest entries, elect signs, add what agrees.

    Returns:
        ``(*shape)`` float32.
    """
    deltas = inputs.deltas()
    for i, share in enumerate(inputs.numbers("density")):
        if share < 1:
            keep = largest(deltas[i], share)
            deltas[i] = masked(deltas[i], keep, share, inputs.shared["rescale"])
    return merged(inputs, deltas, elect=True)


METHOD = Method(
    name="ties",
    merge=_merge,
    params=(WEIGHT, density(1.0, 0.5), normalize(True), rescale(False), LAMBDA, INT8_MASK),
    base="required",
    models=(1, None),
    reference="arXiv:2306.01708",
)

"""Trim, elect sign, merge: of each task vector the largest entries, if they agree in sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import largest, params, sparsified
from merge_core.methods.task_vectors import merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Trim ``d_i`` to its ``density`` of largest entries, elect signs, add what agrees.

    Returns:
        ``(*shape)`` float32.
    """
    trimmed = sparsified(inputs, lambda d, values, _: largest(d, float(values["density"])))
    return merged(inputs, trimmed, elect=True)


METHOD = Method(
    name="ties",
    merge=_merge,
    params=params(start=0.5, normalized=True, rescaled=False),
    base="required",
    models=(1, None),
    reference="arXiv:2306.01708",
)

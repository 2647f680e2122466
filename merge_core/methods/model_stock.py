"""Goes from the base towards the experts' mean, by as much as the angle between them says."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.rows import row_dots, row_norms, rows_of

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = t mean_i W_i + (1 - t) W_b``, ``t = k cos / (1 + (k - 1) cos)``.

    ``cos`` is the mean cosine between the task vectors of two models, over all pairs; of the whole
    tensor, or of each row where ``filter_wise`` is true. A denominator below 1e-6 gives ``t = 0``.

    Returns:
        ``(*shape)`` float32.

    Source: arXiv:2403.19522, equation 7.
    """
    assert inputs.base is not None
    deltas = [rows_of(delta, bool(inputs.shared["filter_wise"])) for delta in inputs.deltas()]
    norms = [row_norms(delta) for delta in deltas]
    cosines = [
        (row_dots(deltas[i], deltas[j]) / (norms[i] * norms[j]).clamp(min=1e-6)).clamp(-1, 1)
        for i, j in combinations(range(len(deltas)), 2)
    ]
    k = len(deltas)
    cosine = sum(cosines[1:], cosines[0]) / len(cosines)  # (rows,) float64
    below = 1 + (k - 1) * cosine
    t = (k * cosine / below).masked_fill(below.abs() < 1e-6, 0.0).float().unsqueeze(-1)
    mean = deltas[0].clone()
    for delta in deltas[1:]:
        mean += delta
    return (mean.div_(k) * t).reshape(inputs.base.shape).add_(inputs.base.float())


METHOD = Method(
    name="model_stock",
    merge=_merge,
    params=(
        Param(
            "filter_wise",
            "one angle for each row instead of one for the tensor",
            default=False,
            scope="shared",
            choices=(True, False),
        ),
    ),
    base="required",
    models=(3, None),
    reference="arXiv:2403.19522",
)

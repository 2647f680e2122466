"""Goes from the base towards the experts' mean, by as much as the angle between them says."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Param, Prepared
from merge_core.methods.shared.dot_products import products_of, row_products
from merge_core.methods.shared.weighted_sum import summed

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return ``t / k`` with ``t = k cos / (1 + (k - 1) cos)``.

    ``cos`` is the mean cosine between the task vectors of two models, over all pairs; of the whole
    tensor, or of each row where ``filter_wise`` is true. A denominator below 1e-6 gives ``t = 0``.

    Source: arXiv:2403.19522, equation 7.
    """
    import torch

    k = len(inputs.models)
    if inputs.shared["filter_wise"] and inputs.models[0].dim() > 1:
        products = row_products(inputs)
    else:
        plain = products_of(inputs.models, inputs, from_base=True)
        products = [[torch.tensor(x, dtype=torch.float64) for x in row] for row in plain]
    norms = [products[i][i].sqrt() for i in range(k)]
    cosines = [
        (products[i][j] / (norms[i] * norms[j]).clamp(min=1e-6)).clamp(-1, 1)
        for i, j in combinations(range(k), 2)
    ]
    cosine = sum(cosines[1:], cosines[0]) / len(cosines)
    below = 1 + (k - 1) * cosine
    share = (cosine / below).masked_fill(below.abs() < 1e-6, 0.0)
    if share.dim():
        return Prepared(rows={"share": [share.float().unsqueeze(-1)]})
    return Prepared({"share": [float(share)]})


def _entry(block: Block) -> Tensor:
    """``out = t mean_i W_i + (1 - t) W_b``, as ``W_b + (t / k) sum_i d_i``."""
    assert block.base is not None
    return summed(block.deltas()) * block.numbers["share"][0] + block.base


METHOD = Method(
    name="model_stock",
    prepare=_prepare,
    entry=_entry,
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
    source="arXiv:2403.19522",
    once_ns=3,
)

"""Goes from the base towards the experts' mean, by as much as the angle between them says."""

from __future__ import annotations

from itertools import combinations

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, flag, required
from merge_core.methods.shared.dot_products import line_products, tensor_products
from merge_core.methods.shared.weighted_sum import summed


def _prepare(inputs: Inputs) -> Prepared:
    """Return ``t / k``, for each row where ``filter_wise`` is true."""
    k, rows = len(inputs.models), inputs.shared["filter_wise"] and inputs.models[0].dim() > 1
    products = line_products(inputs) if rows else tensor_products(inputs)
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
    return summed(block.deltas()) * block.numbers["share"][0] + required(block.base)


def reference(inputs: Inputs) -> Tensor:
    """Return the point between base and mean in float64; equation 7 of the paper."""
    import torch

    deltas = torch.stack(inputs.deltas()).double()
    k, rows = len(deltas), inputs.shared["filter_wise"] and deltas.dim() > 2
    flat = deltas.flatten(1, -2) if rows else deltas.reshape(k, 1, -1)
    norms = flat.norm(dim=-1)
    i, j = torch.triu_indices(k, k, 1)
    products = (flat[i] * flat[j]).sum(-1)
    cosine = (products / (norms[i] * norms[j]).clamp(min=1e-6)).clamp(-1, 1).mean(0)
    below = 1 + (k - 1) * cosine
    t = torch.where(below.abs() < 1e-6, 0, k * cosine / below)
    return (flat.mean(0) * t[:, None]).reshape(deltas[0].shape) + required(inputs.base)


METHOD = Method(
    name="model_stock",
    reference=reference,
    formula="c = mean over i < j of <d_i, d_j> / (|d_i| |d_j|), for each row with filter_wise\n"
    "t = k c / (1 + (k - 1) c), 0 where the denominator is next to zero\n"
    "out = t mean_i W_i + (1 - t) W_b",
    about=(
        "Model Stock (Jang et al., 2024) starts from a finding: models tuned from one base with "
        "other seeds lie on a sphere around a centre that is better than each of them. From the "
        "angles between their task vectors follows where on the way from the base to their mean "
        "the point next to that centre is: at wide angles near the base, at narrow ones near the "
        "mean. There is nothing to tune; filter_wise measures an angle for each row."
    ),
    when="Two or more models tuned for the same task from one base, and no data to choose weights "
    "with: the angle between them says how far to trust their mean.",
    prepare=_prepare,
    entry=_entry,
    params=(
        flag("filter_wise", "one angle for each row instead of one for the tensor", default=False),
    ),
    base="required",
    models=(3, None),
    source="arXiv:2403.19522",
    once_ns=3,
)

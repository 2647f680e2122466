"""Spherical interpolation between two models, or between their task vectors, by weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merge_core.contract import Inputs, Method, Param, Prepared
from merge_core.errors import ParameterError
from merge_core.methods.shared.dot_products import column_products, products_of, row_products
from merge_core.methods.shared.weighted_sum import vector_sum

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return the factors of the two vectors: one each per tensor, per row, or per column.

    ``t = weight_2 / (weight_1 + weight_2)``, 0.5 where the sum is below 1e-6 in size. One vector
    per tensor (``nuslerp_flatten``), else per row; ``nuslerp_row_wise`` then means per *column*, as
    the dialect has it. Vectors that point the same or opposite ways are interpolated linearly.

    Raises:
        ParameterError: There are not two models beside the base.
    """
    import torch

    if len(inputs.models) != 2:
        raise ParameterError(f"expected two models beside the base, got {len(inputs.models)}")
    weights = inputs.numbers("weight")
    total = sum(weights)
    t = weights[1] / total if abs(total) >= 1e-6 else 0.5
    if inputs.shared["nuslerp_flatten"] or inputs.models[0].dim() < 2:
        plain = products_of(inputs.models, inputs, from_base=True)
        products = [[torch.tensor(x, dtype=torch.float64) for x in row] for row in plain]
        return Prepared({"factor": [float(x) for x in _factors(products, t)]})
    if inputs.shared["nuslerp_row_wise"]:
        factors = _factors(column_products(inputs), t)
        return Prepared(columns={"factor": [x.float().reshape(1, -1) for x in factors]})
    factors = _factors(row_products(inputs), t)
    return Prepared(rows={"factor": [x.float().unsqueeze(-1) for x in factors]})


def _factors(products: Sequence[Sequence[Tensor]], t: float) -> tuple[Tensor, Tensor]:
    """Return ``sin((1-t) theta)/sin(theta)`` and ``sin(t theta)/sin(theta)``, float64.

    Args:
        products: Dot products of the two vectors, of any shape.
        t: The place on the arc between them.
    """
    a, b = (products[i][i].sqrt().clamp(min=1e-7) for i in (0, 1))
    theta = (products[0][1] / (a * b)).clamp(-1, 1).arccos()
    sine = theta.sin()
    straight = sine <= 1e-6  # a float64 cosine of -1 + 2**-53 already has a sine of 1.5e-8
    sine = sine.masked_fill(straight, 1.0)
    first = (((1 - t) * theta).sin() / sine).masked_fill(straight, 1 - t)
    return first, ((t * theta).sin() / sine).masked_fill(straight, t)


METHOD = Method(
    name="nuslerp",
    prepare=_prepare,
    entry=vector_sum,
    params=(
        Param("weight", "share of the model, relative to the other's", low=0, high=1, start=0.5),
        Param(
            "nuslerp_flatten",
            "the tensor as one vector instead of many",
            default=True,
            scope="shared",
            choices=(True, False),
        ),
        Param(
            "nuslerp_row_wise",
            "without flatten: columns as vectors instead of rows",
            default=False,
            scope="shared",
            choices=(True, False),
        ),
    ),
    base="optional",
    models=(2, 3),
    source="doi:10.1145/325334.325242",
    once_ns=2.7,
)

"""Spherical interpolation between two models, or between their task vectors, by weights."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.contract import Inputs, Method, Param, Prepared, Tensor, flag
from merge_core.errors import ParameterError
from merge_core.methods.shared.dot_products import line_products, tensor_products
from merge_core.methods.shared.weighted_sum import on_base, vector_sum, vectors


def _prepare(inputs: Inputs) -> Prepared:
    """Return the factors of the two vectors: one each per tensor, per row, or per column."""
    if len(inputs.models) != 2:
        raise ParameterError(f"expected two models beside the base, got {len(inputs.models)}")
    t = _place(inputs.numbers("weight"))
    if inputs.shared["nuslerp_flatten"] or inputs.models[0].dim() < 2:
        return Prepared({"factor": [float(x) for x in _factors(tensor_products(inputs), t)]})
    columns = bool(inputs.shared["nuslerp_row_wise"])
    factors = _factors(line_products(inputs, columns=columns), t)
    if columns:
        return Prepared(columns={"factor": [x.float().reshape(1, -1) for x in factors]})
    return Prepared(rows={"factor": [x.float().unsqueeze(-1) for x in factors]})


def _place(weights: Sequence[float]) -> float:
    total = sum(weights)
    return weights[1] / total if abs(total) >= 1e-6 else 0.5


def _factors(products: Sequence[Sequence[Tensor]], t: float) -> tuple[Tensor, Tensor]:
    """Return ``sin((1-t) theta)/sin(theta)`` and ``sin(t theta)/sin(theta)``, float64."""
    a, b = (products[i][i].sqrt().clamp(min=1e-7) for i in (0, 1))
    theta = (products[0][1] / (a * b)).clamp(-1, 1).arccos()
    sine = theta.sin()
    straight = sine <= 1e-6  # a float64 cosine of -1 + 2**-53 already has a sine of 1.5e-8
    sine = sine.masked_fill(straight, 1.0)
    first = (((1 - t) * theta).sin() / sine).masked_fill(straight, 1 - t)
    return first, ((t * theta).sin() / sine).masked_fill(straight, t)


def reference(inputs: Inputs) -> Tensor:
    """Return the arcs' points at ``t`` in float64, the base added if there is one."""
    import torch

    a, b = (vector.double() for vector in vectors(inputs))
    t, dims = _place(inputs.numbers("weight")), tuple(range(a.dim()))
    if a.dim() > 1 and not inputs.shared["nuslerp_flatten"]:
        dims = dims[:1] if inputs.shared["nuslerp_row_wise"] else dims[-1:]
    first, second = ((x * x).sum(dims, keepdim=True).sqrt().clamp(min=1e-7) for x in (a, b))
    theta = ((a * b).sum(dims, keepdim=True) / (first * second)).clamp(-1, 1).arccos()
    arc = (((1 - t) * theta).sin() * a + (t * theta).sin() * b) / theta.sin()
    out = torch.where(theta.sin() <= 1e-6, (1 - t) * a + t * b, arc)
    return on_base(inputs, out)


METHOD = Method(
    name="nuslerp",
    reference=reference,
    formula="t = weight_2 / (weight_1 + weight_2), 0.5 where the weights sum to zero\n"
    "out = W_b + (sin((1 - t) theta) v_1 + sin(t theta) v_2) / sin(theta), W_b if there is one\n"
    "theta: angle between v_1 and v_2; of the tensors, or of each row without nuslerp_flatten,\n"
    "of each column with nuslerp_row_wise; linear where v_1 and v_2 are parallel",
    about=(
        "The spherical interpolation of slerp with a weight for each model in place of t, and "
        "with a choice of what is turned: each tensor as one vector, or its rows or columns one "
        "by one. With a base the two task vectors are interpolated and the result is added to the "
        "base; without one, the models' own weights are."
    ),
    when="As slerp, by weights; with a base it turns from one task vector to the other, whose "
    "angle is wide where that of whole weights is next to none.",
    prepare=_prepare,
    entry=vector_sum,
    params=(
        Param(
            "weight",
            "share of the model, relative to the other's",
            low=0,
            high=1,
            start=0.5,
            smooth=True,
        ),
        flag("nuslerp_flatten", "the tensor as one vector instead of many", default=True),
        flag(
            "nuslerp_row_wise", "without flatten: columns as vectors instead of rows", default=False
        ),
    ),
    base="optional",
    models=(2, 3),
    source="doi:10.1145/325334.325242",
    once_ns=2.7,
)

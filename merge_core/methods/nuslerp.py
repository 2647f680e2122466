"""Spherical interpolation between two models, or between their task vectors, by weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.rows import row_dots, row_norms, rows_of

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = W_b + slerp(d_1, d_2)``, or ``slerp(W_1, W_2)`` without a base.

    ``t = weight_2 / (weight_1 + weight_2)``, 0.5 where the sum is below 1e-6 in size. One vector
    per tensor (``nuslerp_flatten``), else per row; ``nuslerp_row_wise`` then means per *column*, as
    the dialect has it. Vectors that point the same or opposite ways are interpolated linearly.

    Returns:
        ``(*shape)`` float32.

    Raises:
        ParameterError: There are not two models beside the base.
    """
    if len(inputs.models) != 2:
        raise ParameterError(f"expected two models beside the base, got {len(inputs.models)}")
    weights = inputs.numbers("weight")
    total = sum(weights)
    t = weights[1] / total if abs(total) >= 1e-6 else 0.5
    ends = inputs.deltas() if inputs.base is not None else [m.float() for m in inputs.models]
    flat = bool(inputs.shared["nuslerp_flatten"])
    turned = bool(inputs.shared["nuslerp_row_wise"]) and not flat and ends[0].dim() > 1
    if turned:
        ends = [end.transpose(0, -1).contiguous() for end in ends]
    out = _slerp(rows_of(ends[0], not flat), rows_of(ends[1], not flat), t).reshape(ends[0].shape)
    if turned:
        out = out.transpose(0, -1).contiguous()
    return out if inputs.base is None else out.add_(inputs.base.float())


def _slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolate each row of ``(rows, n)`` float32 along the arc; returns the same shape."""
    cosine = row_dots(a, b) / (row_norms(a).clamp(min=1e-7) * row_norms(b).clamp(min=1e-7))
    theta = cosine.clamp(-1, 1).arccos()
    sine = theta.sin()
    straight = sine <= 1e-6  # a float64 cosine of -1 + 2**-53 already has a sine of 1.5e-8
    sine = sine.masked_fill(straight, 1.0)
    first = (((1 - t) * theta).sin() / sine).masked_fill(straight, 1 - t).float().unsqueeze(-1)
    second = ((t * theta).sin() / sine).masked_fill(straight, t).float().unsqueeze(-1)
    return (a * first).add_(b * second)


METHOD = Method(
    name="nuslerp",
    merge=_merge,
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
    reference="doi:10.1145/325334.325242",
)

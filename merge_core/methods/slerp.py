"""Spherical interpolation between two models, each tensor as one long vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.reduction import dot, norm

if TYPE_CHECKING:
    from torch import Tensor

NEARLY_PARALLEL = 0.9995  # |cos| from which the sine in the denominator is too small: lerp instead


def _merge(inputs: Inputs) -> Tensor:
    """``out = sin((1-t) theta)/sin(theta) W_b + sin(t theta)/sin(theta) W_1``.

    ``theta`` is the angle between the two tensors as flat vectors. Where they are nearly parallel
    or nearly opposite (|cos theta| > 0.9995) the result is ``(1-t) W_b + t W_1``. ``t`` may lie
    outside [0, 1] and then extrapolates. A vector of norm <= 1e-8 counts as having norm 1.

    Returns:
        ``(*shape)`` float32. ``t = 0`` is the base, ``t = 1`` the other model.

    Source: Shoemake 1985; thresholds as in the mergekit dialect.
    """
    assert inputs.base is not None
    t = inputs.number("t")
    a, b = inputs.base.float(), inputs.models[0].float()
    norms = [n if n > 1e-8 else 1.0 for n in (norm(a), norm(b))]
    cosine = max(-1.0, min(1.0, dot(a, b) / (norms[0] * norms[1])))
    if abs(cosine) > NEARLY_PARALLEL:
        first, second = 1 - t, t
    else:
        theta = math.acos(cosine)
        first = math.sin((1 - t) * theta) / math.sin(theta)
        second = math.sin(t * theta) / math.sin(theta)
    return (a * first).add_(b * second)


METHOD = Method(
    name="slerp",
    merge=_merge,
    params=(
        Param("t", "0 is the base, 1 the other model", low=0, high=1, scope="shared", start=0.5),
    ),
    base="required",
    models=(2, 2),
    reference="doi:10.1145/325334.325242",
)

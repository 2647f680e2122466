"""Spherical interpolation between two models, each tensor as one long vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Param, Prepared
from merge_core.methods.shared.dot_products import products_of
from merge_core.methods.shared.weighted_sum import weighted

if TYPE_CHECKING:
    from torch import Tensor


NEARLY_PARALLEL = 0.9995  # |cos| from which the sine in the denominator is too small: lerp instead


def _prepare(inputs: Inputs) -> Prepared:
    """Return the factors: ``sin((1-t) theta)/sin(theta)`` of the base, ``sin(t theta)/sin(theta)``.

    ``theta`` is the angle between the two tensors as flat vectors. Where they are nearly parallel
    or nearly opposite (|cos theta| > 0.9995) the factors are ``1-t`` and ``t``. ``t`` may lie
    outside [0, 1] and then extrapolates. A vector of norm <= 1e-8 counts as having norm 1.

    Source: Shoemake 1985; thresholds as in the mergekit dialect.
    """
    assert inputs.base is not None
    t = inputs.number("t")
    products = products_of([inputs.base, *inputs.models], inputs, from_base=False)
    lengths = [n if n > 1e-8 else 1.0 for n in (products[i][i] ** 0.5 for i in (0, 1))]
    cosine = max(-1.0, min(1.0, products[0][1] / (lengths[0] * lengths[1])))
    if abs(cosine) > NEARLY_PARALLEL:
        first, second = 1 - t, t
    else:
        theta = math.acos(cosine)
        first = math.sin((1 - t) * theta) / math.sin(theta)
        second = math.sin(t * theta) / math.sin(theta)
    return Prepared({"factor": [first, second]})


def _entry(block: Block) -> Tensor:
    """``out = first W_b + second W_1``: ``t = 0`` is the base, ``t = 1`` the other model."""
    assert block.base is not None
    return weighted([block.base, *block.models], block.numbers["factor"])


METHOD = Method(
    name="slerp",
    prepare=_prepare,
    entry=_entry,
    params=(
        Param("t", "0 is the base, 1 the other model", low=0, high=1, scope="shared", start=0.5),
    ),
    base="required",
    models=(2, 2),
    source="doi:10.1145/325334.325242",
    once_ns=4.6,
)

"""Spherical interpolation between two models, each tensor as one long vector."""

from __future__ import annotations

import math

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, required, shared
from merge_core.methods.shared.dot_products import products_of
from merge_core.methods.shared.weighted_sum import weighted

NEARLY_PARALLEL = 0.9995  # |cos| from which the sine in the denominator is too small: lerp instead


def _prepare(inputs: Inputs) -> Prepared:
    """Thresholds as in the mergekit dialect: a vector of norm <= 1e-8 counts as having norm 1."""
    t = inputs.number("t")
    products = products_of(inputs, with_base=True)
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
    return weighted([required(block.base), *block.models], block.numbers["factor"])


def reference(inputs: Inputs) -> Tensor:
    """Return the point at ``t`` of the arc from the base to the model, in float64."""
    a, b, t = required(inputs.base).double(), inputs.models[0].double(), inputs.number("t")
    lengths = [x.norm() if x.norm() > 1e-8 else 1.0 for x in (a, b)]
    cosine = ((a * b).sum() / (lengths[0] * lengths[1])).clamp(-1, 1)
    if cosine.abs() > NEARLY_PARALLEL:
        return (1 - t) * a + t * b
    theta = cosine.arccos()
    return (((1 - t) * theta).sin() * a + (t * theta).sin() * b) / theta.sin()


METHOD = Method(
    name="slerp",
    reference=reference,
    formula="cos(theta) = <W_b, W_1> / (|W_b| |W_1|)\n"
    "out = (sin((1 - t) theta) W_b + sin(t theta) W_1) / sin(theta)\n"
    "out = (1 - t) W_b + t W_1 where |cos(theta)| > 0.9995; t may lie outside [0, 1]",
    about=(
        "Goes along the arc of a sphere from one model to the other instead of along the straight "
        "line (Shoemake, 1985), with each tensor read as one long vector. The result is about as "
        "long as the two, where a mean, on the straight line through the sphere, comes out "
        "shorter. Where the angle is next to none, the arc is the line, and that is what is "
        "computed. It takes two models and no more; merge results with a third one after the "
        "other, as documents of one file."
    ),
    when="Two models whose weights point different ways, where a mean would lose length. Models "
    "tuned from one base are mostly so near that it is linear with weights 1 - t and t.",
    prepare=_prepare,
    entry=_entry,
    params=(shared("t", "0 is the base, 1 the other model", 0, 1, start=0.5, smooth=True),),
    base="required",
    models=(2, 2),
    source="doi:10.1145/325334.325242",
    once_ns=4.6,
)

"""Spherical mean of any number of models in one step from their normalized mean."""

from __future__ import annotations

import math

from merge_core.contract import Inputs, Method, Param, Prepared, Tensor, flag, shared
from merge_core.errors import ParameterError
from merge_core.methods.shared.dot_products import length_of, products_of
from merge_core.methods.shared.weighted_sum import on_base, vector_sum, vectors, weighted

PARALLEL_NOISE = 3e-8  # what is left of a sum of float32 vectors that cancel out


def _prepare(inputs: Inputs) -> Prepared:
    """Return a factor for each vector, from dot products alone: all terms are sums of ``u_i``."""
    import numpy as np

    if len(inputs.models) == 1:
        return Prepared({"factor": [1.0]}, ("alone",))
    eps = inputs.number("eps")
    weights = np.array(_weights(inputs))
    products = np.array(products_of(inputs))
    if not np.isfinite(products).all():
        return Prepared({"factor": [math.nan] * len(weights)})  # and so is the result
    norms = np.sqrt(products.diagonal())
    scale = 1 / (norms + eps)
    units = products * scale * scale[:, None]  # dot products of the units
    length = length_of(units, weights)
    if length < max(eps, PARALLEL_NOISE):
        if len(weights) > 2 and max(norms) > eps:  # vectors of no length have nothing to cancel
            raise ParameterError("the models cancel out and have no spherical mean")
        return Prepared({"factor": weights.tolist()})
    mean = weights / length
    step = weights - mean * float(weights @ (units @ mean))
    n = length_of(units, step) + eps
    reached = mean * math.cos(n) + step * (math.sin(n) / n)
    return Prepared({"factor": (reached * float(weights @ norms) * scale).tolist()})


def _weights(inputs: Inputs) -> list[float]:
    weights = inputs.numbers("weight")
    if not inputs.shared["normalize_weights"]:
        return weights
    total = sum(weights)
    if abs(total) < 1e-8:
        raise ParameterError(f"the weights sum to {total:g} and cannot be normalized")
    return [weight / total for weight in weights]


def reference(inputs: Inputs) -> Tensor:
    """Return the mean in float64, the base added if there is one."""
    if len(inputs.models) == 1:
        return inputs.models[0].double()
    v, weights, eps = [x.double() for x in vectors(inputs)], _weights(inputs), inputs.number("eps")
    u = [x / (x.norm() + eps) for x in v]
    m = weighted(u, weights)
    if m.norm() < max(eps, PARALLEL_NOISE):
        out = weighted(v, weights)
    else:
        m = m / m.norm()
        s = weighted([x - (x * m).sum() * m for x in u], weights)
        n = s.norm() + eps
        out = (m * n.cos() + s * n.sin() / n) * weighted([x.norm() for x in v], weights)
    return on_base(inputs, out)


METHOD = Method(
    name="multislerp",
    reference=reference,
    formula="u_i = v_i / (|v_i| + eps), m = sum_i weight_i u_i, made of length 1\n"
    "s = sum_i weight_i (u_i - <u_i, m> m), n = |s| + eps\n"
    "out = W_b + (m cos(n) + s sin(n) / n) sum_i weight_i |v_i|, W_b if there is one\n"
    "one model is returned as it is; two that cancel out give sum_i weight_i v_i",
    about=(
        "A spherical mean of any number of models with weights (Goddard, 2024). All directions "
        "are projected onto the plane that touches the sphere at their normalized weighted mean, "
        "averaged there, and the mean is carried back to the sphere and given the weighted mean "
        "of the lengths. It is one step of what karcher iterates, taken from a good start. With a "
        "base task vectors are averaged, and added to it."
    ),
    when="Three or more models or task vectors of different directions and unlike weights, where a "
    "mean would lose length. For models of one weight, karcher is exact.",
    prepare=_prepare,
    entry=vector_sum,
    params=(
        Param("weight", "share of the model", low=0, high=1, start=1, smooth=True),
        flag("normalize_weights", "divide the weights by their sum", default=True),
        shared("eps", "added to norms before dividing by them", 1e-10, 1e-4, above=0, default=1e-8),
    ),
    base="optional",
    models=(1, None),
    source="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    once_ns=2.7,
)

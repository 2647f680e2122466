"""Spherical mean of any number of models in one step from their normalized mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.reduction import dot, norm

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """One exponential-map step on the sphere, scaled to the weighted mean of the norms.

    With units ``u_i = v_i / (|v_i| + eps)`` of the models (of the task vectors, if there is a base)
    and ``m`` the normalized ``sum weight_i u_i``: tangents ``u_i - <u_i, m> m``, their weighted sum
    ``s`` of length ``n``, and ``out = (m cos n + s sin(n) / n) sum weight_i |v_i|``. One model is
    returned as it is, whatever its weight.

    Returns:
        ``(*shape)`` float32.

    Raises:
        ParameterError: The weights sum to zero, or three or more vectors cancel out.
    """
    if len(inputs.models) == 1:
        return inputs.models[0].float().clone()
    eps = inputs.number("eps")
    vectors = inputs.deltas() if inputs.base is not None else [m.float() for m in inputs.models]
    weights = _weights(inputs)
    norms = [norm(vector) for vector in vectors]
    units = [vector / (length + eps) for vector, length in zip(vectors, norms, strict=True)]
    mean = _sum(units, weights)
    length = norm(mean)
    if length < eps:
        if len(vectors) > 2 and max(norms) > eps:  # vectors of no length have nothing to cancel
            raise ParameterError("the models cancel out and have no spherical mean")
        out = _sum(vectors, weights)
    else:
        out = _stepped(units, weights, mean.div_(length), eps)
        out *= sum(weight * size for weight, size in zip(weights, norms, strict=True))
    return out if inputs.base is None else out.add_(inputs.base.float())


def _weights(inputs: Inputs) -> list[float]:
    weights = inputs.numbers("weight")
    if not inputs.shared["normalize_weights"]:
        return weights
    total = sum(weights)
    if abs(total) < 1e-8:
        raise ParameterError(f"the weights sum to {total:g} and cannot be normalized")
    return [weight / total for weight in weights]


def _sum(tensors: list[Tensor], weights: list[float]) -> Tensor:
    out = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        out += tensor * weight
    return out


def _stepped(units: list[Tensor], weights: list[float], mean: Tensor, eps: float) -> Tensor:
    """Return the unit vector that the exponential map reaches from ``mean``."""
    tangents = [unit - mean * dot(unit, mean) for unit in units]
    step = _sum(tangents, weights)
    length = norm(step) + eps
    return (mean * math.cos(length)).add_(step * (math.sin(length) / length))


METHOD = Method(
    name="multislerp",
    merge=_merge,
    params=(
        Param("weight", "share of the model", low=0, high=1, start=1),
        Param(
            "normalize_weights",
            "divide the weights by their sum",
            default=True,
            scope="shared",
            choices=(True, False),
        ),
        Param(
            "eps",
            "added to norms before dividing by them",
            low=1e-10,
            high=1e-4,
            above=0,
            default=1e-8,
            scope="shared",
        ),
    ),
    base="optional",
    models=(1, None),
    reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
)

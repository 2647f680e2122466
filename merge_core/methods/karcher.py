"""Karcher mean: the point of the sphere with the least squared angles to all models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param
from merge_core.reduction import dot, norm

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """The mean direction of the models, all alike, times the mean of their norms.

    Starts at the normalized mean of the unit vectors and goes along ``sum theta/sin(theta) (u_i -
    cos(theta) m) / k`` until that is shorter than ``tol`` or ``max_iter`` steps are made. Models of
    norm <= ``tol`` have no direction, but count in the mean of the norms.

    Returns:
        ``(*shape)`` float32.

    Source: Buss and Fillmore, Spherical averages, ACM ToG 20 (2001), algorithm A1.
    """
    tol = inputs.number("tol")
    models = [model.float() for model in inputs.models]
    norms = [norm(model) for model in models]
    units = [m / n for m, n in zip(models, norms, strict=True) if n > tol]
    if not units:
        return models[0].new_zeros(models[0].shape)
    share = 1 / len(units)
    mean = _mean(units, tol)
    for _ in range(round(inputs.number("max_iter"))):
        step = _tangent(units, mean, share, tol)
        length = norm(step)
        if length < tol:
            break
        mean = (mean * math.cos(length)).add_(step * (math.sin(length) / length))
        mean /= norm(mean)
    return mean * (sum(norms) / len(norms))


def _mean(units: list[Tensor], tol: float) -> Tensor:
    out = units[0].clone()
    for unit in units[1:]:
        out += unit
    length = norm(out) / len(units)
    return units[0].clone() if length < tol else out.div_(length * len(units))


def _tangent(units: list[Tensor], mean: Tensor, share: float, tol: float) -> Tensor:
    step = mean.new_zeros(mean.shape)
    for unit in units:
        cosine = max(-1.0, min(1.0, dot(unit, mean)))
        theta = math.acos(cosine)
        if theta >= tol:
            step += (unit - mean * cosine) * (share * theta / math.sin(theta))
    return step


METHOD = Method(
    name="karcher",
    merge=_merge,
    params=(
        Param(
            "max_iter",
            "most steps",
            low=1,
            high=50,
            minimum=1,
            default=10,
            scope="shared",
        ),
        Param(
            "tol",
            "length of a step that ends the iteration",
            low=1e-8,
            high=1e-3,
            above=0,
            default=1e-5,
            scope="shared",
        ),
    ),
    base="none",
    models=(1, None),
    reference="doi:10.1145/502122.502124",
)

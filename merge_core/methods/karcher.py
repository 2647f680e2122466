"""Karcher mean: the point of the sphere with the least squared angles to all models."""

from __future__ import annotations

import math
from typing import Any

from merge_core.contract import Inputs, Method, Prepared, Tensor, shared
from merge_core.methods.shared.dot_products import length_of, products_of
from merge_core.methods.shared.weighted_sum import vector_sum

OPPOSITE = 1e-6  # so close to the opposite of the mean a model pulls nowhere in particular


def _prepare(inputs: Inputs) -> Prepared:
    """Return a factor for each model, from dot products alone: the mean is a sum of the models.

    Models of norm <= ``tol`` have no direction, but count in the mean of the norms.
    Source: Buss and Fillmore, Spherical averages, ACM ToG 20 (2001), algorithm A1.
    """
    import numpy as np

    tol, steps = inputs.number("tol"), round(inputs.number("max_iter"))
    products = np.array(products_of(inputs))
    norms = np.sqrt(products.diagonal())
    chosen = np.flatnonzero(norms > tol)
    factors = np.zeros(len(norms))
    if not np.isfinite(products).all():
        factors[:] = np.nan  # and so the result
    elif len(chosen):
        scale = 1 / norms[chosen]
        units = products[np.ix_(chosen, chosen)] * scale * scale[:, None]
        factors[chosen] = _mean(units, tol, steps) * scale * norms.mean()
    return Prepared({"factor": factors.tolist()})


def _mean(units: Any, tol: float, steps: int) -> Any:
    """Return the factors of unit vectors in their mean direction, from their dot products."""
    import numpy as np

    k = len(units)
    mean = np.full(k, 1 / k)
    if length_of(units, mean) < tol:
        mean = np.eye(k)[0]
    mean = mean / length_of(units, mean)
    for _ in range(steps):
        cosines = np.clip(units @ mean, -1, 1)
        angles = np.arccos(cosines)
        far = (angles >= tol) & (angles <= math.pi - OPPOSITE)
        shares = np.where(far, angles / np.where(far, np.sin(angles), 1) / k, 0)
        step = shares - mean * float(shares @ cosines)
        length = length_of(units, step)
        if length < tol:
            break
        mean = mean * math.cos(length) + step * (math.sin(length) / length)
        mean = mean / length_of(units, mean)
    return mean


def reference(inputs: Inputs) -> Tensor:
    """Return the mean in float64."""
    import torch

    tol, models = inputs.number("tol"), torch.stack([x.double().flatten() for x in inputs.models])
    norms = models.norm(dim=1)
    u = models[norms > tol] / norms[norms > tol, None]
    m = u.mean(0) if u.mean(0).norm() >= tol else u[:1].sum(0)
    m = m / m.norm().clamp(min=tol)
    for _ in range(round(inputs.number("max_iter"))):
        theta = (u @ m).clamp(-1, 1).arccos()
        far = (theta >= tol) & (theta <= math.pi - OPPOSITE)
        s = torch.where(far, theta / theta.sin() / len(u), 0) @ (u - theta.cos()[:, None] * m)
        if s.norm() >= tol:
            m = m * s.norm().cos() + s * s.norm().sin() / s.norm()
    return torch.mul(m, norms.mean()).reshape(inputs.models[0].shape)


METHOD = Method(
    name="karcher",
    reference=reference,
    formula="u_i = W_i / |W_i|; m = mean_i u_i, made of length 1\n"
    "max_iter times, or until |s| < tol: theta_i = angle between u_i and m,\n"
    "s = mean_i theta_i / sin(theta_i) (u_i - cos(theta_i) m), m <- m cos|s| + s sin|s| / |s|\n"
    "out = m mean_i |W_i|",
    about=(
        "The mean that a sphere has: the direction whose squared angles to those of all models "
        "add up to least (Buss and Fillmore, 2001). It is found by steps: all models are seen "
        "from the present mean as arrows in the plane that touches the sphere there, and the mean "
        "moves along their mean. All models count alike, a base that is listed as well. The "
        "result has the mean of their lengths."
    ),
    when="Models of equal standing and different directions, where a mean would lose length; it "
    "favours none of them, and the order does not matter.",
    prepare=_prepare,
    entry=vector_sum,
    params=(
        shared("max_iter", "most steps", 1, 50, minimum=1, default=10),
        shared(
            "tol", "length of a step that ends the iteration", 1e-8, 1e-3, above=0, default=1e-5
        ),
    ),
    base="none",
    models=(1, None),
    source="doi:10.1145/502122.502124",
    once_ns=3.5,
)

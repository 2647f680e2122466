"""Which entries of a task vector stay, and how the rest makes up for the lost ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.mask import kept
from merge_core.methods.declaration import Inputs, Param, Value
from merge_core.reduction import l1

if TYPE_CHECKING:
    from torch import Tensor


def rescale(default: bool) -> Param:
    """Return the parameter ``rescale``; true means ``l1``, false means ``none``."""
    return Param(
        "rescale",
        "l1 (true): give the kept entries the L1 norm of all; inverse_density: divide by density",
        default=default,
        scope="shared",
        choices=(True, False, "l1", "inverse_density", "none"),
    )


def largest(delta: Tensor, density: float) -> Tensor:
    """Return which entries are among the ``max(1, floor(density * n))`` of largest magnitude.

    Exactly that many: among equals at the threshold, those with the lowest index.

    Args:
        delta: ``(*shape)`` float32.
        density: In (0, 1].

    Returns:
        ``(*shape)`` bool.

    Source: TIES-Merging, arXiv:2306.01708, step 1, for each tensor by itself.
    """
    size = delta.abs().reshape(-1)
    n = size.numel()
    count = max(1, math.floor(density * n))
    threshold = size.kthvalue(n - count + 1).values  # the count-th largest
    keep = size > threshold
    equal = size == threshold
    missing = count - keep.sum()
    return (keep | (equal & (equal.cumsum(0) <= missing))).reshape(delta.shape)


def drawn(delta: Tensor, density: float, key: int) -> Tensor:
    """Return an independent coin for each entry, True with probability ``density``.

    Args:
        delta: ``(*shape)``; only its shape and device count.
        density: In (0, 1].
        key: Of the counter-based mask, see ``merge_core.mask``.

    Returns:
        ``(*shape)`` bool.

    Source: DARE, arXiv:2311.03099, equation 1 (drop rate ``1 - density``).
    """
    return kept(key, density, delta.numel(), delta.device).reshape(delta.shape)


def masked(delta: Tensor, keep: Tensor, density: float, mode: Value) -> Tensor:
    """Return ``delta`` with the other entries zero, rescaled as ``mode`` says.

    Args:
        delta: ``(*shape)`` float32.
        keep: ``(*shape)`` bool.
        density: In (0, 1]; the divisor of ``inverse_density``.
        mode: ``l1`` (or True): times L1(delta) / L1(kept), unless either is below 1e-7, as the
            mergekit dialect does; ``inverse_density``: divided by ``density``, as the DARE paper
            does, unbiased; ``none`` (or False).

    Returns:
        ``(*shape)`` float32, a new tensor.
    """
    out = delta * keep
    if mode in (True, "l1"):
        before, after = l1(delta), l1(out)
        if before >= 1e-7 and after >= 1e-7:
            out *= before / after
    elif mode == "inverse_density":
        out /= density
    return out


def dropped(inputs: Inputs) -> list[Tensor]:
    """Return every task vector with a random share of its entries dropped (DARE).

    Args:
        inputs: With ``density`` per model and ``rescale`` shared; density 1 draws nothing.

    Returns:
        ``(*shape)`` float32 for each model.
    """
    deltas = inputs.deltas()
    for i, share in enumerate(inputs.numbers("density")):
        if share < 1:
            keep = drawn(deltas[i], share, inputs.keys[i])
            deltas[i] = masked(deltas[i], keep, share, inputs.shared["rescale"])
    return deltas

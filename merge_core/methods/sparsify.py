"""Which entries of a task vector stay, and how the rest makes up for the lost ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.mask import kept, kept_each
from merge_core.methods.declaration import Cut, Inputs, Param, Value, Values
from merge_core.methods.task_vectors import INT8_MASK, LAMBDA, WEIGHT, density, normalize
from merge_core.reduction import kth_smallest, l1

if TYPE_CHECKING:
    from torch import Tensor


GAMMA = Param(
    "gamma",
    "share of task vector entries, the largest, that are dropped",
    low=0,
    high=0.1,
    default=0.01,
    minimum=0,
    maximum=1,
)
EPSILON = Param(
    "epsilon",
    "how far the keep probability of the smallest and largest entries is from density",
    low=0,
    high=0.3,
    default=0.15,
    minimum=0,
    maximum=0.5,
)


def rescale(default: bool) -> Param:
    """Return the parameter ``rescale``; true means ``l1``, false means ``none``."""
    return Param(
        "rescale",
        "l1 (true): give the kept entries the L1 norm of all; inverse_density: divide by density",
        default=default,
        scope="shared",
        choices=(True, False, "l1", "inverse_density", "none"),
    )


def params(*own: Param, start: float, normalized: bool, rescaled: bool) -> tuple[Param, ...]:
    """Return the parameters of a method that sparsifies task vectors.

    Args:
        own: What this method has beside the others.
        start: Density of an unsearched recipe.
        normalized: Default of ``normalize``.
        rescaled: Default of ``rescale``.
    """
    common = (normalize(normalized), rescale(rescaled), LAMBDA, INT8_MASK)
    return (WEIGHT, density(1.0, start), *own, *common)


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
    return first_largest(delta.abs(), max(1, math.floor(density * delta.numel())))


def first_largest(size: Tensor, count: int) -> Tensor:
    """Return the ``count`` largest entries; of equals at the threshold those of lowest index.

    Args:
        size: ``(*shape)`` float32.
        count: From 0 to the number of entries; more than there are means all.

    Returns:
        ``(*shape)`` bool.
    """
    return first_smallest(-size, count)


def first_smallest(size: Tensor, count: int) -> Tensor:
    """Return the ``count`` smallest entries; of equals at the threshold those of lowest index.

    Args:
        size: ``(*shape)`` float32.
        count: From 0 to the number of entries; more than there are means all.

    Returns:
        ``(*shape)`` bool.
    """
    n = size.numel()
    if count <= 0 or n == 0:
        return size.new_zeros(size.shape).bool()
    threshold = kth_smallest(size.reshape(-1), min(count, n) - 1)
    sure = size < threshold
    return sure | _first(size == threshold, count - int(sure.sum()))


def beyond(delta: Tensor, cut: Cut) -> Tensor:
    """Return which entries are larger than the threshold, or among the first that equal it.

    Args:
        delta: ``(*shape)`` float32, one tensor of the task vector that ``cut`` was made for.
        cut: Of this tensor.

    Returns:
        ``(*shape)`` bool.

    Source: TIES-Merging, arXiv:2306.01708, step 1, for the whole task vector.
    """
    size = delta.abs()
    return (size > cut.threshold) | _first(size == cut.threshold, cut.equal)


def _first(where: Tensor, count: int) -> Tensor:
    """Return the first ``count`` true entries in flat order, ``(*shape)`` bool."""
    return where & (where.reshape(-1).cumsum(0).reshape(where.shape) <= count)


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


def sparsified(inputs: Inputs, keep: Callable[[Tensor, Values, int], Tensor]) -> list[Tensor]:
    """Return every task vector with only the entries that ``keep`` chooses, rescaled.

    Args:
        inputs: With ``density`` per model, ``rescale`` shared; density 1 keeps all, draws nothing.
        keep: Gets a task vector, its model's parameters and place; gives ``(*shape)`` bool.

    Returns:
        ``(*shape)`` float32 for each model.
    """
    deltas = inputs.deltas()
    for i, values in enumerate(inputs.values):
        share = float(values["density"])
        if share < 1:
            chosen = keep(deltas[i], values, i)
            deltas[i] = masked(deltas[i], chosen, share, inputs.shared["rescale"])
    return deltas


def dropped(inputs: Inputs) -> list[Tensor]:
    """Return every task vector with a random share of its entries dropped (DARE)."""
    return sparsified(
        inputs, lambda d, values, i: drawn(d, float(values["density"]), inputs.keys[i])
    )


def middle(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Return which entries stay when the largest and the smallest go.

    Of ``n`` entries ``floor(gamma n)`` of the largest go, ``floor(density n)`` below them stay, and
    the rest goes; where that is more than there are, the smallest stay and the largest go. Equals
    rank by index.

    Args:
        delta: ``(*shape)`` float32.
        density: In (0, 1].
        gamma: In [0, 1].

    Returns:
        ``(*shape)`` bool.

    Source: Model Breadcrumbs, arXiv:2312.06795, section 3.
    """
    size = delta.abs()
    wanted, top = math.floor(density * size.numel()), math.floor(gamma * size.numel())
    bottom = max(0, size.numel() - wanted - top)
    return first_smallest(size, bottom + wanted) & ~first_smallest(size, bottom)


def trimmed(inputs: Inputs) -> list[Tensor]:
    """Return every task vector without its largest and smallest entries (Model Breadcrumbs)."""
    return sparsified(
        inputs, lambda d, values, _: middle(d, float(values["density"]), float(values["gamma"]))
    )


def probabilities(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Return the keep probability of every entry: from its rank by magnitude in its row.

    From ``density - epsilon`` for a row's smallest entry to ``density + epsilon`` for its largest,
    evenly in rank; ``density`` in rows of one entry. A tensor of one dimension is one row.

    Args:
        delta: ``(*shape)`` float32.
        density: In (0, 1).
        epsilon: Such that both ends are in (0, 1).

    Returns:
        ``(*shape)`` float64.

    Raises:
        ParameterError: An end is not in (0, 1).

    Source: DELLA, arXiv:2406.11617, MagPrune.
    """
    if not (density - epsilon > 0 and density + epsilon < 1):
        raise ParameterError(
            f"density - epsilon and density + epsilon must be in (0, 1), got density {density} "
            f"and epsilon {epsilon}"
        )
    rows = delta.abs().reshape(1, -1) if delta.dim() < 2 else delta.abs()
    n = rows.shape[1]
    if n == 1:
        return (delta * 0).double() + density
    ranks = rows.argsort(dim=1, stable=True).argsort(dim=1)  # 0 for the smallest
    return (ranks.double() / (n - 1) * (2 * epsilon) + (density - epsilon)).reshape(delta.shape)


def dropped_by_rank(inputs: Inputs) -> list[Tensor]:
    """Return every task vector with entries dropped at random, small ones more often (DELLA)."""

    def keep(delta: Tensor, values: Values, i: int) -> Tensor:
        chances = probabilities(delta, float(values["density"]), float(values["epsilon"]))
        return kept_each(inputs.keys[i], chances.reshape(-1)).reshape(delta.shape)

    return sparsified(inputs, keep)

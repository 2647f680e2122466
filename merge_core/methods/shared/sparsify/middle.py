"""The masks of Model Breadcrumbs: neither the largest nor the smallest entries stay."""

from __future__ import annotations

import math

from merge_core.contract import Block, Inputs, Param, Prepared, Tensor
from merge_core.methods.shared.sparsify.cuts import changes, cut_at
from merge_core.methods.shared.sparsify.rule import Rule
from merge_core.numerics.order_statistics import above

DROPPED = "share of task vector entries, the largest, that are dropped"
GAMMA = Param("gamma", DROPPED, low=0, high=0.1, default=0.01, minimum=0, maximum=1)


def keep_middle(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Return ``delta`` with ``floor(density n)`` entries below its ``floor(gamma n)`` largest.

    Where that is more than there are, the smallest stay and the largest go; equals rank by index.
    Density 1 keeps all. ``delta``: ``(*shape)`` float32; ``density``: in [0, 1]; ``gamma``: in
    [0, 1].

    Source: Model Breadcrumbs, arXiv:2312.06795, section 3.
    """
    bottom, top = _ends(delta.numel(), density, gamma)
    middle = delta.abs().flatten().argsort(stable=True)[bottom:top]
    return delta * delta.new_zeros(delta.numel()).index_fill(0, middle, 1).view_as(delta)


def _ends(n: int, density: float, gamma: float) -> tuple[int, int]:
    """Return how many of ``n`` entries are below the middle, and below its end."""
    if density >= 1:
        return 0, n
    wanted = math.floor(density * n)
    bottom = max(0, n - wanted - math.floor(gamma * n))
    return bottom, min(bottom + wanted, n)


def _find(inputs: Inputs) -> Prepared:
    """Return the least size that stays in each task vector, and the size that does not."""
    numbers: dict[str, list[float]] = {"least": [], "most": []}
    later: dict[str, list[tuple[int, int, float]]] = {"least": [], "most": []}
    for i, values in enumerate(inputs.values):
        n = inputs.models[i].numel()
        ends = _ends(n, float(values["density"]), float(values["gamma"]))
        for name, place in zip(numbers, ends, strict=True):
            if place in (0, n):
                numbers[name].append(0.0 if place == 0 else math.inf)
                continue
            cut = cut_at(inputs, i, place, first_equal_last=False)
            # equals ahead of the place are on the small side of the cut
            numbers[name].append(above(cut.threshold) if cut.place else cut.threshold)
            if cut.place:
                later[name].append((cut.place, i, cut.threshold))
    return Prepared(numbers, changes=changes(numbers, later))


def _drops(block: Block, i: int, delta: Tensor) -> Tensor:
    size, numbers = delta.abs(), block.numbers
    found: Tensor = (size < numbers["least"][i]) | (size >= numbers["most"][i])
    return found


MIDDLE = Rule("middle", _find, _drops)

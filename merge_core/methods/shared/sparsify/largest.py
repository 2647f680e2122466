"""The trim of TIES: the largest entries of a task vector stay."""

from __future__ import annotations

import math

from merge_core.contract import Block, Cut, Inputs, Prepared, Tensor
from merge_core.methods.shared.sparsify.cuts import changes, cut_at
from merge_core.methods.shared.sparsify.rule import Rule
from merge_core.numerics.order_statistics import above


def trim_largest(delta: Tensor, density: float) -> Tensor:
    """Return ``delta`` with its ``max(1, floor(density n))`` entries of largest size, else zero.

    Density 0 keeps none. Of equals those of lowest index stay. ``delta``: ``(*shape)`` float32;
    ``density``: in [0, 1].

    Source: TIES-Merging, arXiv:2306.01708, section 3, step 1.
    """
    count = max(1, math.floor(density * delta.numel())) if density else 0
    largest = delta.abs().flatten().argsort(descending=True, stable=True)[:count]
    return delta * delta.new_zeros(delta.numel()).index_fill(0, largest, 1).view_as(delta)


def _find(inputs: Inputs) -> Prepared:
    """Return the least size that stays in each task vector, and where among equals to stop."""
    least: list[float] = []
    later: list[tuple[int, int, float]] = []
    for i, values in enumerate(inputs.values):
        share, n = float(values["density"]), inputs.models[i].numel()
        if share >= 1 or n == 0:
            least.append(0.0)
            continue
        if share <= 0:
            least.append(math.inf)
            continue
        place = n - max(1, math.floor(share * n))
        cut = cut_of_whole(inputs, i) or cut_at(inputs, i, place, first_equal_last=True)
        least.append(cut.threshold)
        later.append((cut.place, i, above(cut.threshold)))
    return Prepared({"least": least}, changes=changes({"least": least}, {"least": later}))


def cut_of_whole(inputs: Inputs, i: int) -> Cut | None:
    """Return the cut of the whole task vector, if it is asked for and this tensor is not all."""
    return inputs.cuts[i] if inputs.shared.get("trim") == "global" and inputs.cuts else None


def _drops(block: Block, i: int, delta: Tensor) -> Tensor:
    found: Tensor = delta.abs() < block.numbers["least"][i]
    return found


LARGEST = Rule("largest", _find, _drops)

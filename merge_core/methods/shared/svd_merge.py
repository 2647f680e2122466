"""What merges by singular value decompositions share: a weighted sum of directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from merge_core.contract import Block, Inputs, Prepared, Tensor, required
from merge_core.methods.shared import task_vectors
from merge_core.methods.shared.weighted_sum import weighted

WEIGHT = replace(task_vectors.WEIGHT, default=1.0)  # in the papers it is 1


def prepared(inputs: Inputs, directions: Sequence[Tensor], weights: Sequence[float]) -> Prepared:
    """Return what :func:`entry` needs: a weight for each direction, ``(*shape)`` float32."""
    numbers = {"weight": weights, "share": [inputs.number("lambda")]}
    return Prepared(numbers, arrays={"direction": directions})


def entry(block: Block) -> Tensor:
    """``out = W_b + lambda sum_i weight_i D_i``."""
    mixed = weighted(block.arrays["direction"], block.numbers["weight"])
    return mixed * block.numbers["share"][0] + required(block.base)

"""Drops a random share of each task vector, then lets the rest elect signs as TIES does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import dropped, rescale
from merge_core.methods.task_vectors import (
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    density,
    merged,
    normalize,
)

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Drop entries of ``d_i`` at random, rescale, and merge. Returns ``(*shape)`` float32."""
    return merged(inputs, dropped(inputs), elect=True)


METHOD = Method(
    name="dare_ties",
    merge=_merge,
    params=(WEIGHT, density(1.0, 0.5), normalize(False), rescale(True), LAMBDA, INT8_MASK),
    base="required",
    models=(2, None),
    draws=True,
    reference="arXiv:2311.03099",
)

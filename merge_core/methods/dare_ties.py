"""Drops a random share of each task vector, then lets the rest elect signs as TIES does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import dropped, params
from merge_core.methods.task_vectors import CONSENSUS, merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Drop entries of ``d_i`` at random, rescale, and merge. Returns ``(*shape)`` float32."""
    return merged(inputs, dropped(inputs), elect=True)


METHOD = Method(
    name="dare_ties",
    merge=_merge,
    params=(*params(start=0.5, normalized=False, rescaled=True), CONSENSUS),
    base="required",
    models=(2, None),
    draws=True,
    reference="arXiv:2311.03099",
)

"""Drops small task vector entries more often than large ones; the rest elect signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import EPSILON, dropped_by_rank, params
from merge_core.methods.task_vectors import CONSENSUS, merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Drop entries of ``d_i`` by rank, rescale, and merge. Returns ``(*shape)`` float32."""
    return merged(inputs, dropped_by_rank(inputs), elect=True)


METHOD = Method(
    name="della",
    merge=_merge,
    params=(*params(EPSILON, start=0.5, normalized=True, rescaled=True), CONSENSUS),
    base="required",
    models=(2, None),
    draws=True,
    reference="arXiv:2406.11617",
)

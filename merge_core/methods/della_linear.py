"""Drops small task vector entries more often than large ones and adds the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import EPSILON, dropped_by_rank, params
from merge_core.methods.task_vectors import merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Drop entries of ``d_i`` by rank, rescale, and merge. Returns ``(*shape)`` float32."""
    return merged(inputs, dropped_by_rank(inputs), elect=False)


METHOD = Method(
    name="della_linear",
    merge=_merge,
    params=params(EPSILON, start=0.5, normalized=False, rescaled=True),
    base="required",
    models=(2, None),
    draws=True,
    reference="arXiv:2406.11617",
)

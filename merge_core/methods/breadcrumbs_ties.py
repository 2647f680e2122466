"""Drops each task vector's largest and smallest entries; the rest elect signs as in TIES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method
from merge_core.methods.sparsify import GAMMA, params, trimmed
from merge_core.methods.task_vectors import CONSENSUS, merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Keep the middle of ``|d_i|``, and merge. Returns ``(*shape)`` float32."""
    return merged(inputs, trimmed(inputs), elect=True)


METHOD = Method(
    name="breadcrumbs_ties",
    merge=_merge,
    params=(*params(GAMMA, start=0.9, normalized=False, rescaled=False), CONSENSUS),
    base="required",
    models=(2, None),
    reference="arXiv:2312.06795",
)

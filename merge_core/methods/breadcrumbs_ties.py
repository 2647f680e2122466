"""Drops each task vector's largest and smallest entries; the rest elect signs as in TIES."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.sparsify import GAMMA, Rule
from merge_core.methods.shared.task_vectors import CONSENSUS, entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Keep the middle of ``|d_i|``, elect signs, add what agrees."""
    return prepared(inputs, Rule("middle"), elect=True)


METHOD = Method(
    name="breadcrumbs_ties",
    prepare=_prepare,
    entry=entry,
    params=(*params(GAMMA, start=0.9, normalized=False, rescaled=False), CONSENSUS),
    base="required",
    models=(2, None),
    source="arXiv:2312.06795",
    once_ns=20,
)

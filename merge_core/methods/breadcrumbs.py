"""Drops each task vector's largest and smallest entries and adds the rest."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.sparsify import GAMMA, Rule
from merge_core.methods.shared.task_vectors import entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Keep the middle of ``|d_i|``, and add."""
    return prepared(inputs, Rule("middle"), elect=False)


METHOD = Method(
    name="breadcrumbs",
    prepare=_prepare,
    entry=entry,
    params=params(GAMMA, start=0.9, normalized=False, rescaled=False),
    base="required",
    models=(2, None),
    source="arXiv:2312.06795",
    once_ns=18,
)

"""Drops small task vector entries more often than large ones and adds the rest."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.sparsify import EPSILON, Rule
from merge_core.methods.shared.task_vectors import entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Drop entries of ``d_i`` by rank, rescale, and add."""
    return prepared(inputs, Rule("ranks"), elect=False)


METHOD = Method(
    name="della_linear",
    prepare=_prepare,
    entry=entry,
    params=params(EPSILON, start=0.5, normalized=False, rescaled=True),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2406.11617",
    once_ns=44,
    once_bytes=2,
)

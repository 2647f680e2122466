"""Drops a random share of each task vector, then lets the rest elect signs as TIES does."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.sparsify import Rule
from merge_core.methods.shared.task_vectors import CONSENSUS, entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Drop entries of ``d_i`` at random, rescale, elect signs, add what agrees."""
    return prepared(inputs, Rule("coins"), elect=True)


METHOD = Method(
    name="dare_ties",
    prepare=_prepare,
    entry=entry,
    params=(*params(start=0.5, normalized=False, rescaled=True), CONSENSUS),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2311.03099",
    once_ns=10,
)

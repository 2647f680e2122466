"""Adds task vectors of which a random share was dropped and the rest scaled up."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.sparsify import Rule
from merge_core.methods.shared.task_vectors import entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Drop entries of ``d_i`` at random, rescale, and add."""
    return prepared(inputs, Rule("coins"), elect=False)


METHOD = Method(
    name="dare_linear",
    prepare=_prepare,
    entry=entry,
    params=params(start=0.5, normalized=False, rescaled=True),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2311.03099",
    once_ns=10,
)

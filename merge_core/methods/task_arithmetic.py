"""Adds weighted task vectors to the base: addition, and with negative weights forgetting."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Prepared
from merge_core.methods.shared.task_vectors import (
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    entry,
    normalize,
    prepared,
)


def _prepare(inputs: Inputs) -> Prepared:
    """``out = W_b + lambda * sum_i weight_i d_i``."""
    return prepared(inputs, elect=False)


METHOD = Method(
    name="task_arithmetic",
    prepare=_prepare,
    entry=entry,
    params=(WEIGHT, normalize(False), LAMBDA, INT8_MASK),
    base="required",
    models=(1, None),
    source="arXiv:2212.04089",
)

"""Drops each task vector's largest and smallest entries and adds the rest."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.sparsify.middle import GAMMA, MIDDLE, keep_middle
from merge_core.methods.shared.task_vectors import ADDED, add, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Keep the middle, add."""
    each = zip(inputs.deltas(), inputs.numbers("density"), inputs.numbers("gamma"), strict=True)
    kept = [keep_middle(delta, share, gamma) for delta, share, gamma in each]
    return add(inputs, weigh(inputs, kept))


METHOD = Method(
    name="breadcrumbs",
    prepare=partial(prepared, rule=MIDDLE, elects=False),
    entry=entry,
    params=params(GAMMA, start=0.9, normalized=False, rescaled=False),
    base="required",
    models=(2, None),
    source="arXiv:2312.06795",
    formula="x_i = the floor(density_i n) largest of d_i below its floor(gamma_i n) largest\n"
    + ADDED,
    about=(
        "Model Breadcrumbs (Davari and Belilovsky, 2023) cuts both ends off each task vector: the "
        "share gamma with the largest size, outliers that drown what other models learnt, and the "
        "smallest, which are noise, so that the share density stays in between. What is left is "
        "added with its weights. It needs no data and draws nothing at random."
    ),
    when=(
        "Many models, and no validation data to tune each: outliers and noise go, and "
        "parameters found for a few models serve for more."
    ),
    reference=reference,
    once_ns=18,
)

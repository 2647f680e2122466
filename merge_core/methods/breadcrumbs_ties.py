"""Drops each task vector's largest and smallest entries; the rest elect signs as in TIES."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.elect import CONSENSUS, ELECTED
from merge_core.methods.shared.sparsify.middle import GAMMA, MIDDLE, keep_middle
from merge_core.methods.shared.task_vectors import add_elected, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Keep the middle, elect signs, add what agrees."""
    each = zip(inputs.deltas(), inputs.numbers("density"), inputs.numbers("gamma"), strict=True)
    kept = [keep_middle(delta, share, gamma) for delta, share, gamma in each]
    return add_elected(inputs, weigh(inputs, kept))


METHOD = Method(
    name="breadcrumbs_ties",
    prepare=partial(prepared, rule=MIDDLE, elects=True),
    entry=entry,
    params=(*params(GAMMA, start=0.9, normalized=False, rescaled=False), CONSENSUS),
    base="required",
    models=(2, None),
    source="arXiv:2312.06795",
    formula="x_i = the floor(density_i n) largest of d_i below its floor(gamma_i n) largest\n"
    + ELECTED,
    about=(
        "The two-sided trim of Model Breadcrumbs (Davari and Belilovsky, 2023), followed by the "
        "sign election of TIES (Yadav et al., 2023): the largest share gamma of each task "
        "vector's entries and the smallest go, and of what stays each entry adds up only the "
        "models that agree with the sign that has more weight behind it."
    ),
    when="Where breadcrumbs helps, and signs of several models disagree.",
    reference=reference,
    once_ns=20,
)

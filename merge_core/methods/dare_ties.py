"""Drops a random share of each task vector, then lets the rest elect signs as TIES does."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.elect import CONSENSUS, ELECTED
from merge_core.methods.shared.sparsify.bernoulli import BERNOULLI, drop_at_random
from merge_core.methods.shared.task_vectors import add_elected, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Drop at random, rescale, elect signs, add what agrees."""
    each = zip(inputs.deltas(), inputs.numbers("density"), inputs.keys, strict=True)
    kept = [drop_at_random(delta, share, key) for delta, share, key in each]
    return add_elected(inputs, weigh(inputs, kept))


METHOD = Method(
    name="dare_ties",
    prepare=partial(prepared, rule=BERNOULLI, elects=True),
    entry=entry,
    params=(*params(start=0.5, normalized=False, rescaled=True), CONSENSUS),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2311.03099",
    formula=(
        "m_i ~ Bernoulli(density_i) for each entry\n"
        "x_i = r_i m_i d_i; rescale: r_i = L1(d_i) / L1(m_i d_i), or 1 / density_i\n" + ELECTED
    ),
    about=(
        "The random drop and rescale of DARE (Yu et al., 2023), followed by the sign election of "
        "TIES (Yadav et al., 2023) in place of a plain sum: of what the masks leave, each entry "
        "adds up only the models that agree with the sign that has more weight behind it. The "
        "masks come from the recipe's seed: `mergetune merge --seeds 5` shows how much they "
        "matter."
    ),
    when=(
        "Fine-tuned models whose changes are small and redundant: the paper drops 90 % and "
        "more of them. Not after long pre-training, whose changes are large; and where signs "
        "of several models disagree."
    ),
    reference=reference,
    once_ns=10,
)

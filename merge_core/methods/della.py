"""Drops small task vector entries more often than large ones; the rest elect signs."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.elect import CONSENSUS, ELECTED
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON, RANK_BERNOULLI, drop_by_rank
from merge_core.methods.shared.task_vectors import add_elected, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Drop by rank, rescale, elect signs, add what agrees."""
    shares, spreads = inputs.numbers("density"), inputs.numbers("epsilon")
    each = zip(inputs.deltas(), shares, spreads, inputs.keys, strict=True)
    kept = [drop_by_rank(delta, share, epsilon, key) for delta, share, epsilon, key in each]
    return add_elected(inputs, weigh(inputs, kept))


METHOD = Method(
    name="della",
    prepare=partial(prepared, rule=RANK_BERNOULLI, elects=True),
    entry=entry,
    params=(*params(EPSILON, start=0.5, normalized=True, rescaled=True), CONSENSUS),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2406.11617",
    formula=(
        "m_i ~ Bernoulli(density_i + epsilon_i u), u from -1 to 1 by the rank of |d_i| in its row\n"
        "x_i = r_i m_i d_i; rescale: r_i = L1(d_i) / L1(m_i d_i), or 1 / density_i\n" + ELECTED
    ),
    about=(
        "DELLA (Deep et al., 2024) drops entries at random as DARE does, but not all with one "
        "probability: in each row the smallest entry stays with the probability density - "
        "epsilon, the largest with density + epsilon, and those between by their rank. What stays "
        "is scaled up, the signs are elected as in TIES, and the models that agree are averaged "
        "(normalize) or added. With epsilon 0 all have one probability, as in dare_ties. The "
        "masks come from the recipe's seed."
    ),
    when=(
        "Where dare_ties helps, but large changes matter more than small ones: at the same "
        "density more of the small ones go."
    ),
    reference=reference,
    once_ns=44,
    once_bytes=2,
)

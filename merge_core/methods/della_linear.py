"""Drops small task vector entries more often than large ones and adds the rest."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON, RANK_BERNOULLI, drop_by_rank
from merge_core.methods.shared.task_vectors import ADDED, add, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Drop by rank, rescale, add."""
    shares, spreads = inputs.numbers("density"), inputs.numbers("epsilon")
    each = zip(inputs.deltas(), shares, spreads, inputs.keys, strict=True)
    kept = [drop_by_rank(delta, share, epsilon, key) for delta, share, epsilon, key in each]
    return add(inputs, weigh(inputs, kept))


METHOD = Method(
    name="della_linear",
    prepare=partial(prepared, rule=RANK_BERNOULLI, elects=False),
    entry=entry,
    params=params(EPSILON, start=0.5, normalized=False, rescaled=True),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2406.11617",
    formula=(
        "m_i ~ Bernoulli(density_i + epsilon_i u), u from -1 to 1 by the rank of |d_i| in its row\n"
        "x_i = r_i m_i d_i; rescale: r_i = L1(d_i) / L1(m_i d_i), or 1 / density_i\n" + ADDED
    ),
    about=(
        "The drop by rank of DELLA (Deep et al., 2024): the larger an entry is in its row, the "
        "more probably it stays, from density - epsilon for the smallest to density + epsilon for "
        "the largest. What stays is scaled up, and all task vectors are added with their weights, "
        "without an election of signs. With epsilon 0 all have one probability, as in "
        "dare_linear. The masks come from the recipe's seed."
    ),
    when=(
        "Where dare_linear helps, but large changes matter more than small ones: at the same "
        "density more of the small ones go."
    ),
    reference=reference,
    once_ns=44,
    once_bytes=2,
)

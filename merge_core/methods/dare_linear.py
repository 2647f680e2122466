"""Adds task vectors of which a random share was dropped and the rest scaled up."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.sparsify.bernoulli import BERNOULLI, drop_at_random
from merge_core.methods.shared.task_vectors import ADDED, add, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Drop at random, rescale, add."""
    each = zip(inputs.deltas(), inputs.numbers("density"), inputs.keys, strict=True)
    kept = [drop_at_random(delta, share, key) for delta, share, key in each]
    return add(inputs, weigh(inputs, kept))


METHOD = Method(
    name="dare_linear",
    prepare=partial(prepared, rule=BERNOULLI, elects=False),
    entry=entry,
    params=params(start=0.5, normalized=False, rescaled=True),
    base="required",
    models=(2, None),
    draws=True,
    source="arXiv:2311.03099",
    formula=(
        "m_i ~ Bernoulli(density_i) for each entry\n"
        "x_i = r_i m_i d_i; rescale: r_i = L1(d_i) / L1(m_i d_i), or 1 / density_i\n" + ADDED
    ),
    about=(
        "DARE, drop and rescale (Yu et al., 2023), sets entries of each task vector to zero at "
        "random, each with the probability 1 - density, and scales the others up so that nothing "
        "changes on average; then task vectors are added with their weights. Changes of fine- "
        "tuning are so redundant that most of them may go, and what is left of several models "
        "collides less. The masks come from the recipe's seed: `mergetune merge --seeds 5` shows "
        "how much they matter."
    ),
    when=(
        "Fine-tuned models whose changes are small and redundant: the paper drops 90 % and "
        "more of them. Not after long pre-training, whose changes are large."
    ),
    reference=reference,
    once_ns=10,
)

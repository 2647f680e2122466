"""The sign election of TIES, and the sum of what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.contract import Tensor, shared
from merge_core.methods.shared.weighted_sum import summed

VOTE = "elect signs by the sum of the weighted task vectors, or by a count of their signs"
CONSENSUS = shared("consensus", VOTE, default="sum", choices=("sum", "count"))
ELECTED = (
    "s = sign(sum_i weight_i x_i), or of the sum of their signs (consensus: count); plus at 0\n"
    "out = W_b + lambda sum_i weight_i x_i, over i of sign s (normalize: / sum_i weight_i of these)"
)


def elect(terms: Sequence[Tensor], count: bool) -> Tensor:
    """Return 1 or -1 for every entry: the sign of the terms' sum, or of the sum of their signs.

    Zero counts as plus.

    Source: TIES-Merging, arXiv:2306.01708, section 3, step 2 (vote by weighted sum).
    """
    import torch

    vote = summed([term.sign() for term in terms] if count else terms)
    return torch.where(vote >= 0, 1.0, -1.0)


def sum_agreeing(terms: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None) -> Tensor:
    """Return the sum of the terms, ``weight_i d_i`` sparsified, that have the elected sign.

    With ``weights``, divided by the sum of those that took part.

    Source: TIES-Merging, step 3 (disjoint merge).
    """
    import torch

    agreeing = [(term * sign).relu() for term in terms]  # times 1 or -1 is exact; nan stays nan
    mixed = summed(agreeing)
    if weights is not None:
        pairs = zip(agreeing, weights, strict=True)
        divisor = summed([torch.where(term > 0, weight, 0.0) for term, weight in pairs])
        mixed = mixed / torch.where(divisor == 0, 1.0, divisor)
    return mixed * sign

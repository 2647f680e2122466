"""What the task-vector methods share: sparse weighted deltas, a sign election or none, one sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Param, Prepared
from merge_core.errors import ParameterError
from merge_core.methods.shared import sparsify
from merge_core.methods.shared.sparsify import Rule
from merge_core.methods.shared.weighted_sum import summed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = Param("weight", "factor on the model's task vector", low=0, high=1.5, start=1)
LAMBDA = Param(
    "lambda", "factor on the merged task vector", low=0, high=2, default=1.0, scope="shared"
)
INT8_MASK = Param(
    "int8_mask",
    "read for the dialect's sake; it never changed a number",
    default=False,
    scope="shared",
    choices=(True, False),
)
CONSENSUS = Param(
    "consensus",
    "elect signs by the sum of the weighted task vectors, or by a count of their signs",
    default="sum",
    scope="shared",
    choices=("sum", "count"),
)


def density(default: float | None, start: float) -> Param:
    """Return the parameter ``density``, the share of delta entries kept."""
    return Param(
        "density",
        "share of task vector entries kept",
        low=0.1,
        high=1,
        default=default,
        start=start,
        above=0,
        maximum=1,
    )


def normalize(default: bool) -> Param:
    """Return the parameter ``normalize``: divide by the sum of the weights that took part."""
    return Param(
        "normalize",
        "divide by the sum of the weights that took part",
        default=default,
        scope="shared",
        choices=(True, False),
    )


def params(*own: Param, start: float, normalized: bool, rescaled: bool) -> tuple[Param, ...]:
    """Return the parameters of a method that sparsifies task vectors.

    Args:
        own: What this method has beside the others.
        start: Density of an unsearched recipe.
        normalized: Default of ``normalize``.
        rescaled: Default of ``rescale``.
    """
    common = (normalize(normalized), sparsify.rescale(rescaled), LAMBDA, INT8_MASK)
    return (WEIGHT, density(1.0, start), *own, *common)


def prepared(inputs: Inputs, rule: Rule | None = None, *, elect: bool) -> Prepared:
    """Return what :func:`entry` needs: weights, and what the rule keeps of each task vector.

    Args:
        inputs: With ``weight`` per model, ``normalize`` and ``lambda`` shared; with ``density`` and
            ``rescale`` where there is a rule, ``consensus`` where signs are elected.
        rule: Which entries stay; None keeps all.
        elect: Whether entries that have not the elected sign drop out.

    Raises:
        ParameterError: ``normalize`` is true, no signs are elected, and the weights sum to zero.
    """
    weights = inputs.numbers("weight")
    share = inputs.number("lambda")
    normalized = bool(inputs.shared["normalize"])
    if normalized and not elect and weights:
        share /= _sum(weights)
    kept = sparsify.kept(inputs, rule)
    factors = [scale * weight for scale, weight in zip(kept.scales, weights, strict=True)]
    count = inputs.shared.get("consensus") == "count"
    numbers = {"weight": weights, "factor": factors, "share": [share]}
    return Prepared(
        {**numbers, **kept.numbers},
        (elect, normalized, count, rule.name if rule else ""),
        kept.words,
        kept.changes,
        arrays=kept.arrays,
    )


def _sum(weights: Sequence[float]) -> float:
    total = sum(weights)
    if abs(total) < 1e-8:
        raise ParameterError(
            f"the weights sum to {total:g} and cannot be normalized; got {weights}. "
            f"Set normalize: false or other weights"
        )
    return total


def entry(block: Block) -> Tensor:
    """Return ``W_b + lambda * sum_i weight_i d_i``, or the elected part of that sum.

    The sign of an entry is that of ``sum_i weight_i d_i``, or of ``sum_i sign(weight_i d_i)`` where
    ``consensus`` is ``count`` (zero counts as plus); deltas of the other sign, and zeros, drop out.
    ``normalize`` divides by the sum of the weights, with an election by that of those that stayed.

    Returns:
        The block, float32. No models beside the base give the base.

    Source: TIES-Merging, arXiv:2306.01708, section 3, steps 2 and 3 (vote by weighted sum).
    """
    elect, normalized, count, rule = block.flags
    assert block.base is not None
    if not block.models:
        return block.base.clone()
    numbers = block.numbers
    terms = sparsify.terms(block, str(rule), numbers["factor"])
    if not elect:
        return summed(terms) * numbers["share"][0] + block.base
    return _elected(terms, numbers, bool(normalized), bool(count)) + block.base


def _elected(
    terms: Sequence[Tensor], numbers: Mapping[str, Sequence[float]], normalized: bool, count: bool
) -> Tensor:
    import torch

    vote = summed([term.sign() for term in terms] if count else terms)
    sign = torch.where(vote >= 0, 1.0, -1.0)  # times 1 or -1 is exact
    agreeing = [(term * sign).relu() for term in terms]  # nan stays nan
    mixed = summed(agreeing)
    if normalized:
        weights = numbers["weight"]
        # -0.0: see sparsify.terms
        took_part = [
            torch.where(term > 0, weight, -0.0)
            for term, weight in zip(agreeing, weights, strict=True)
        ]
        divisor = summed(took_part)
        mixed = mixed / torch.where(divisor == 0, 1.0, divisor)
    return mixed * sign * numbers["share"][0]

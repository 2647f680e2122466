"""The task-vector methods in the order of their papers: sparsify, weigh, elect, sum, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from merge_core.contract import Block, Inputs, Param, Prepared, Tensor, flag, required, shared
from merge_core.errors import ParameterError
from merge_core.methods.shared.elect import elect, sum_agreeing
from merge_core.methods.shared.sparsify.rescale import rescale, rescaled, scale
from merge_core.methods.shared.sparsify.rule import Rule, terms
from merge_core.methods.shared.weighted_sum import summed

WEIGHT = Param("weight", "factor on the model's task vector", low=0, high=1.5, start=1, smooth=True)
LAMBDA = shared("lambda", "factor on the merged task vector", 0, 2, default=1.0, smooth=True)
ADDED = "out = W_b + lambda sum_i weight_i x_i (normalize: / sum_i weight_i)"
INT8_MASK = flag(
    "int8_mask", "read for the dialect's sake; it never changed a number", default=False
)


def density(start: float) -> Param:
    """Return the parameter ``density``, the share of delta entries kept; none at 0."""
    meaning = "share of task vector entries kept"
    return Param("density", meaning, 0.1, 1, default=1.0, start=start, minimum=0, maximum=1)


def normalize(default: bool) -> Param:
    """Return the parameter ``normalize``: divide by the sum of the weights that took part."""
    return flag("normalize", "divide by the sum of the weights that took part", default=default)


def params(*own: Param, start: float, normalized: bool, rescaled: bool) -> tuple[Param, ...]:
    """Return the parameters of a method that sparsifies task vectors.

    ``own``: what it has beside the others; ``start``: density of an unsearched recipe;
    ``normalized``, ``rescaled``: defaults of these flags.
    """
    common = (normalize(normalized), rescale(rescaled), LAMBDA, INT8_MASK)
    return (WEIGHT, density(start), *own, *common)


def prepared(inputs: Inputs, rule: Rule | None = None, *, elects: bool) -> Prepared:
    """Return what :func:`entry` needs: weights, and what the rule keeps of each task vector.

    Args:
        inputs: With ``weight`` per model, ``normalize`` and ``lambda`` shared; with ``density`` and
            ``rescale`` where there is a rule, ``consensus`` where signs are elected.
        rule: Which entries stay; None keeps all.
        elects: Whether entries that have not the elected sign drop out.

    Raises:
        ParameterError: ``normalize`` is true, no signs are elected, and the weights sum to zero;
            or the rule refuses its parameters.
    """
    weights, share = inputs.numbers("weight"), inputs.number("lambda")
    normalized = bool(inputs.shared["normalize"])
    if normalized and not elects and weights:
        total = sum(weights)
        if abs(total) < 1e-8:
            raise ParameterError(
                f"the weights sum to {total:g} and cannot be normalized; got {weights}. "
                f"Set normalize: false or other weights"
            )
        share /= total
    found, factors = Prepared(), weights
    if rule is not None:
        found = rule.find(inputs)
        factors = [scale(inputs, found, rule, i) * weight for i, weight in enumerate(weights)]
    count = inputs.shared.get("consensus") == "count"
    numbers = {"weight": weights, "factor": factors, "share": [share], **found.numbers}
    return replace(found, numbers=numbers, flags=(rule, elects, normalized, count))


def entry(block: Block) -> Tensor:
    """Return ``W_b + lambda * sum_i weight_i d_i``, or the elected part of that sum.

    ``normalize`` divides by the sum of the weights, with an election by that of those that took
    part. No models beside the base give the base.
    """
    rule, elects, normalized, count = block.flags
    if not block.models:
        return required(block.base).clone()
    numbers = block.numbers
    weighed = terms(block, rule, numbers["factor"])
    if elects:
        weights = numbers["weight"] if normalized else None
        mixed = sum_agreeing(weighed, elect(weighed, count), weights)
    else:
        mixed = summed(weighed)
    return mixed * numbers["share"][0] + required(block.base)


def weigh(inputs: Inputs, kept: Sequence[Tensor]) -> list[Tensor]:
    """Return ``weight_i`` times what was kept of ``d_i``, rescaled: in plain torch, for references.

    ``kept``: ``(*shape)`` float32 each.
    """
    weights, densities = inputs.numbers("weight"), inputs.numbers("density")
    mode, rows = inputs.shared["rescale"], zip(kept, inputs.deltas(), densities, strict=True)
    whole = [rescaled(x, delta, density, mode) for x, delta, density in rows]
    return [weight * x for weight, x in zip(weights, whole, strict=True)]


def add(inputs: Inputs, terms: Sequence[Tensor]) -> Tensor:
    """Return ``W_b + lambda sum_i t_i``, or the weighted mean for the sum: for references."""
    divisor = sum(inputs.numbers("weight")) if inputs.shared["normalize"] else 1.0
    return required(inputs.base).float() + inputs.number("lambda") * summed(terms) / divisor


def add_elected(inputs: Inputs, terms: Sequence[Tensor]) -> Tensor:
    """Return ``W_b + lambda sum_i t_i`` over the terms of elected sign: for references."""
    import torch

    stacked = torch.stack(list(terms))
    votes = stacked.sign() if inputs.shared["consensus"] == "count" else stacked
    sign = torch.where(votes.sum(0) >= 0, 1, -1)  # elect
    agrees = stacked.sign() == sign
    merged = (stacked * agrees).sum(0)  # sum
    if inputs.shared["normalize"]:
        weights = torch.tensor(inputs.numbers("weight")).view(-1, *[1] * merged.dim())
        divisor = (weights * agrees).sum(0)
        merged = merged / torch.where(divisor == 0, 1, divisor)
    return required(inputs.base).float() + inputs.number("lambda") * merged  # scale

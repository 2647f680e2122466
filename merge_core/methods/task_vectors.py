"""What the task-vector methods share: weighted deltas, a sign election or none, one sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.methods.declaration import Inputs, Param

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


def added(inputs: Inputs, deltas: Sequence[Tensor]) -> Tensor:
    """Return ``W_b + lambda * sum_i weight_i d_i``, the sum normalized on request.

    Args:
        inputs: With ``weight`` per model, ``normalize`` and ``lambda`` shared.
        deltas: ``(*shape)`` float32 each, already sparsified; left as they are.

    Raises:
        ParameterError: ``normalize`` is true and the weights sum to zero.
    """
    weights = inputs.numbers("weight")
    mixed = summed(deltas, weights)
    if inputs.shared["normalize"]:
        total = sum(weights)
        if abs(total) < 1e-8:
            raise ParameterError(
                f"the weights sum to {total:g} and cannot be normalized; got {weights}. "
                f"Set normalize: false or other weights"
            )
        mixed /= total
    return onto_base(inputs, mixed)


def summed(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return ``sum_i weight_i d_i``.

    Args:
        deltas: ``(*shape)`` float32 each, at least one; left as they are.
        weights: One for each.
    """
    mixed = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        mixed += delta * weight
    return mixed


def elected(inputs: Inputs, deltas: Sequence[Tensor]) -> Tensor:
    """Return the base plus, entry by entry, the sum of the deltas that have the elected sign.

    The sign of an entry is that of ``sum_i weight_i d_i``, or of ``sum_i sign(weight_i d_i)`` where
    ``consensus`` is ``count`` (zero counts as plus); deltas of the other sign, and zeros, drop out.
    ``normalize`` divides each entry by the sum of the weights of those that stayed.

    Args:
        inputs: With ``weight`` per model, ``consensus``, ``normalize`` and ``lambda`` shared.
        deltas: ``(*shape)`` float32 each, already sparsified; left as they are.

    Source: TIES-Merging, arXiv:2306.01708, section 3, steps 2 and 3 (vote by weighted sum).
    """
    weights = inputs.numbers("weight")
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    mixed = weighted[0].new_zeros(weighted[0].shape)
    divisor = mixed.clone()
    agree = agreeing(weighted, count=inputs.shared["consensus"] == "count")
    for term, weight, stays in zip(weighted, weights, agree, strict=True):
        mixed += term * stays
        divisor += stays * weight
    if inputs.shared["normalize"]:
        mixed /= divisor.masked_fill_(divisor == 0, 1.0)
    return onto_base(inputs, mixed)


def agreeing(terms: Sequence[Tensor], *, count: bool = False) -> list[Tensor]:
    """Return where each term has the sign of the sum of all; a sum of zero counts as plus.

    Args:
        terms: ``(*shape)`` float32 each; zeros agree with nothing.
        count: Sum the signs of the terms instead.

    Returns:
        ``(*shape)`` bool for each term.
    """
    vote = terms[0].new_zeros(terms[0].shape)
    for term in terms:
        vote += term.sign() if count else term
    positive = vote >= 0
    return [((term > 0) & positive) | ((term < 0) & ~positive) for term in terms]


def onto_base(inputs: Inputs, mixed: Tensor) -> Tensor:
    """Return ``W_b + lambda * mixed``. ``mixed``: ``(*shape)`` float32, reused for the result."""
    assert inputs.base is not None
    factor = inputs.number("lambda")
    if factor != 1:
        mixed *= factor
    return mixed.add_(inputs.base.float())


def merged(inputs: Inputs, deltas: Sequence[Tensor], *, elect: bool) -> Tensor:
    """Return :func:`elected` or :func:`added`; no models beside the base give the base."""
    if not deltas:
        assert inputs.base is not None
        return inputs.base.float().clone()
    return elected(inputs, deltas) if elect else added(inputs, deltas)

"""Sums of models or of task vectors, with one factor each."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.contract import Block, Inputs, Tensor


def weighted(tensors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """Return ``sum_i factor_i x_i``, in order."""
    return summed([tensor * factor for tensor, factor in zip(tensors, factors, strict=True)])


def summed(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors, in their order."""
    out = terms[0]
    for term in terms[1:]:
        out = out + term
    return out


def vectors(of: Inputs | Block) -> list[Tensor]:
    """Return the task vectors, the models where there is no base: ``v_i``."""
    return list(of.models) if of.base is None else of.deltas()


def on_base(of: Inputs | Block, out: Tensor) -> Tensor:
    """Return a merged ``v``, the base added if there is one."""
    return out if of.base is None else out + of.base


def vector_sum(block: Block) -> Tensor:
    """Return ``W_b + sum_i factor_i d_i``, or ``sum_i factor_i W_i`` where there is no base.

    A model that the flags say is alone is returned as it is.
    """
    if block.flags == ("alone",):
        return block.models[0].clone()
    return on_base(block, weighted(vectors(block), block.numbers["factor"]))

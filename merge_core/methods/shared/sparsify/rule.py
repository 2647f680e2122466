"""What a rule for the entries of a task vector is, and what is left of a block by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from merge_core.contract import Block, Inputs, Prepared, Tensor
from merge_core.kernels.eager import of_model

PART = 2**18  # entries that are looked at together: with temporaries they stay in the cache


@dataclass(frozen=True)
class Rule:
    """A way to choose entries."""

    name: str
    # reads whole task vectors: numbers, words and arrays that tell what stays from what goes
    find: Callable[[Inputs], Prepared]
    # which entries of model ``i`` of a block go, bool; takes block, ``i``, ``d_i``
    drops: Callable[[Block, int, Tensor], Tensor]
    # with what probability each stays, float32; None: it does not draw lots
    chance: Callable[[Block, int], Tensor] | None = None


def terms(block: Block, rule: Rule | None, factors: Sequence[float]) -> list[Tensor]:
    """Return ``factor_i d_i`` of a block, zero where the rule drops an entry; nan stays."""
    import torch

    deltas = block.deltas()
    if rule is None:
        return [delta * factor for delta, factor in zip(deltas, factors, strict=True)]
    return [
        delta * torch.where(rule.drops(block, i, delta), 0.0, factors[i])
        for i, delta in enumerate(deltas)
    ]


def chosen(inputs: Inputs, rule: Rule, i: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the task vector of one model, block by block, and what share of every entry stays.

    The share is 0 or 1, or the probability where the rule tells it.
    """
    none = inputs.values[i].get("density") == 0
    for block in of_model(inputs, rule.find(inputs), i, PART):
        (delta,) = block.deltas()
        if none:
            yield delta, delta.new_zeros(delta.shape)
        elif rule.chance is None:
            yield delta, (~rule.drops(block, 0, delta)).float()
        else:
            yield delta, rule.chance(block, 0)

"""Which entries each model changed, and how many models changed them: what RAM and RAM+ count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Param
from merge_core.methods.shared.weighted_sum import summed

if TYPE_CHECKING:
    from torch import Tensor


EPSILON = Param(
    "epsilon",
    "an entry that moved by more than this counts as changed",
    low=1e-6,
    high=1e-3,
    minimum=0,
    default=1e-5,
    scope="shared",
)


def changes(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return all task vectors, and where they are active: ``(k, *shape)`` float32 and bool."""
    import torch

    deltas = torch.stack(inputs.deltas())
    return deltas, deltas.abs() > inputs.number("epsilon")


def counted(block: Block) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return task vectors, their active entries, and the number of models active at each entry.

    Args:
        block: With the number ``epsilon``.

    Returns:
        Float32 of the block's shape: for each model, for each (0 or 1), and one.
    """
    deltas = block.deltas()
    active = [(delta.abs() > block.numbers["epsilon"][0]).float() for delta in deltas]
    return deltas, active, summed(active)

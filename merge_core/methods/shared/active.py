"""Which entries each model changed, and how many models changed them: what RAM and RAM+ count."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Tensor, shared
from merge_core.methods.shared.weighted_sum import summed

MEANING = "an entry that moved by more than this counts as changed"
EPSILON = shared("epsilon", MEANING, 1e-6, 1e-3, minimum=0, default=1e-5)


def changes(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return all task vectors, and where they are active: ``(k, *shape)`` float32 and bool."""
    import torch

    deltas = torch.stack(inputs.deltas())
    return deltas, deltas.abs() > inputs.number("epsilon")


def counted(block: Block) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return task vectors, their active entries, and the number of models active at each entry.

    Float32 of the block's shape: for each model, for each (0 or 1), and one.
    """
    deltas = block.deltas()
    active = [(delta.abs() > block.numbers["epsilon"][0]).float() for delta in deltas]
    return deltas, active, summed(active)

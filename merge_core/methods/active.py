"""Which entries each model changed, and how many models changed them: what RAM and RAM+ count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Param

if TYPE_CHECKING:
    from torch import Tensor


def epsilon() -> Param:
    """Return the parameter ``epsilon``."""
    return Param(
        "epsilon",
        "an entry that moved by more than this counts as changed",
        low=1e-6,
        high=1e-3,
        minimum=0,
        default=1e-5,
        scope="shared",
    )


def counted(inputs: Inputs) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return task vectors, their active entries, and the number of models active at each entry.

    Args:
        inputs: With ``epsilon`` shared.

    Returns:
        ``(*shape)`` float32 for each model, ``(*shape)`` bool for each, ``(*shape)`` float32.
    """
    deltas = inputs.deltas()
    active = [delta.abs() > inputs.number("epsilon") for delta in deltas]
    count = deltas[0].new_zeros(deltas[0].shape)
    for where in active:
        count += where
    return deltas, active, count

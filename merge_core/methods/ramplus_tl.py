"""RAM, with what only one model changed made stronger the more that model shares with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.active import counted, epsilon
from merge_core.methods.declaration import Inputs, Method, Param

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """As ``ram``, what only model ``i`` changed times ``1 + r clamp(shared_i/unique_i, 0, alpha)``.

    ``shared_i`` and ``unique_i`` count, in this tensor, the entries that model ``i`` changed
    together with others and alone.

    Returns:
        ``(*shape)`` float32.
    """
    assert inputs.base is not None
    deltas, active, count = counted(inputs)
    alone = count == 1
    mixed = count.new_zeros(count.shape)
    for delta, where in zip(deltas, active, strict=True):
        unique = where & alone
        least = max(int(unique.sum()), inputs.number("epsilon")) or 1  # none alone: no matter what
        overlap = int((where & ~alone).sum()) / least
        factor = 1 + inputs.number("r") * min(max(overlap, 0.0), inputs.number("alpha"))
        mixed += delta * where * (unique * (factor - 1) + 1)
    return (mixed / count.clamp_(min=1)).add_(inputs.base.float())


METHOD = Method(
    name="ramplus_tl",
    merge=_merge,
    params=(
        Param("r", "strength of the boost", low=0, high=1, minimum=0, default=0.1, scope="shared"),
        Param(
            "alpha",
            "greatest overlap that counts",
            low=0,
            high=1,
            minimum=0,
            default=0.2,
            scope="shared",
        ),
        epsilon(),
    ),
    base="required",
    models=(2, None),
    reference="arXiv:2601.13572",
)

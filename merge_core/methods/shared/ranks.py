"""Ranks of task vectors' entries in their rows, as kernels read them fast."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from merge_core.contract import Inputs

if TYPE_CHECKING:
    from torch import Tensor

PART = 2**20  # entries that are looked at together


def ranks(inputs: Inputs) -> list[Tensor]:
    """Return where ``|d_i|`` stands in its row: evenly from -1, the smallest, to 1, the largest.

    Equals stand by their index; an entry alone in its row stands at 0.

    Returns:
        ``(*shape)`` float16 per model: rounded, by at most ``2**-12``.
    """
    return [
        inputs.remembered("ranks", [i], partial(_ranks, inputs, i))
        for i in range(len(inputs.models))
    ]


def _ranks(inputs: Inputs, i: int) -> Tensor:
    import torch

    assert inputs.base is not None
    found = torch.empty_like(inputs.base, dtype=torch.float16)
    if found.numel() == 0:
        return found
    model, base, table = (_table(x) for x in (inputs.models[i], inputs.base, found))
    width = table.shape[-1]
    even = torch.linspace(-1, 1, width, dtype=torch.float64) if width > 1 else torch.zeros(1)
    standing = even.to(found)
    step = max(1, PART // width)
    for start in range(0, len(table), step):
        part = slice(start, start + step)
        sizes = (model[part].float() - base[part].float()).abs_()
        order = sizes.sort(dim=-1, stable=True).indices
        table[part] = table[part].scatter(-1, order, standing.expand(order.shape))
    return found


def _table(x: Tensor) -> Tensor:
    """Return a view of ``x`` as rows along its second axis, or as one row."""
    if x.dim() < 3:
        return x.reshape(-1, x.numel() if x.dim() < 2 else x.shape[1])
    return x.flatten(2).transpose(1, 2)

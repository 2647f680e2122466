"""Ranks of a task vector's entries in their rows, in two bytes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs

if TYPE_CHECKING:
    from torch import Tensor

PART = 2**20  # entries that are looked at together


def row_width(x: Tensor) -> int:
    """Return the length of a row: of the second axis, or of a tensor of one dimension."""
    return x.numel() if x.dim() < 2 else x.shape[1]


def ranks_of(inputs: Inputs, i: int) -> Tensor:
    """Return the rank of ``|d_i|`` in its row, 0 for the smallest: ``(*shape)``.

    In rows of up to ``2**16`` entries a rank is 16 bits, which pass for a bfloat16: a type that
    kernels read many at a time, where they would read an int16 one by one. Else it is an int32.
    """
    import torch

    model, base = inputs.models[i], inputs.base
    assert base is not None
    width = row_width(model)
    if model.numel() == 0:
        return torch.empty(model.shape, dtype=torch.int32)
    table = model.reshape(-1, width) if model.dim() < 3 else model.flatten(2).transpose(1, 2)
    ground = base.reshape(-1, width) if base.dim() < 3 else base.flatten(2).transpose(1, 2)
    ranks = torch.empty(table.shape, dtype=torch.int16 if width <= 2**16 else torch.int32)
    order = torch.arange(width).to(ranks.dtype)  # 40,000 wraps around to a negative int16
    step = max(1, PART // max(width, 1))
    for start in range(0, table.shape[0], step):
        part = slice(start, start + step)
        sizes = (table[part].float() - ground[part].float()).abs_()
        places = sizes.sort(dim=-1, stable=True).indices
        ranks[part] = ranks[part].scatter(-1, places, order.expand(places.shape))
    if model.dim() > 2:
        ranks = ranks.transpose(1, 2).contiguous()
    ranks = ranks.reshape(model.shape)
    return ranks.view(torch.bfloat16) if ranks.dtype == torch.int16 else ranks


def whole_ranks(stored: Tensor) -> Tensor:
    """Return ranks as whole numbers; see :func:`ranks_of`."""
    import torch

    if stored.dtype == torch.int32:
        return stored
    return (stored.float().view(torch.int32) >> 16) & 0xFFFF

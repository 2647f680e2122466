"""Ranks of task vectors' entries in their rows, two models to a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs

if TYPE_CHECKING:
    from torch import Tensor

PART = 2**20  # entries that are looked at together
NARROW = 2**16  # rows up to this length have ranks of 16 bits


@dataclass(frozen=True)
class Packed:
    """Where the ranks of every model are: ``(words >> shift) & mask``.

    Args:
        words: ``(*shape)`` int32 per model, the same tensor for two of them in narrow rows.
        shifts: Bits, per model.
        masks: Per model.
    """

    words: Sequence[Tensor]
    shifts: Sequence[int]
    masks: Sequence[int]


def ranks(inputs: Inputs) -> Packed:
    """Return the rank of every ``|d_i|`` in its row, 0 for the smallest, equals by their index."""
    count = len(inputs.models)
    narrow = count == 0 or row_width(inputs.models[0]) <= NARROW
    words: list[Tensor] = []
    many = 2 if narrow else 1
    for first in range(0, count, many):
        pair = list(range(first, min(first + many, count)))
        found = inputs.remembered("ranks", pair, partial(_packed, inputs, pair))
        words += [found] * len(pair)
    if narrow:
        return Packed(words, [16 * (i % 2) for i in range(count)], [NARROW - 1] * count)
    return Packed(words, [0] * count, [-1] * count)


def row_width(x: Tensor) -> int:
    """Return the length of a row: of the second axis, or of a tensor of one dimension."""
    return x.numel() if x.dim() < 2 else x.shape[1]


def _packed(inputs: Inputs, models: Sequence[int]) -> Tensor:
    """Return the ranks of one model, or of two with those of the second in the upper halves."""
    import torch

    first = inputs.models[models[0]]
    packed = torch.zeros(first.shape, dtype=torch.int32, device=first.device)
    if first.numel() == 0:
        return packed
    table = _table(packed)
    for shift, i in zip((0, 16), models, strict=False):
        for part, found in _by_rows(inputs, i):
            table[part] |= found << shift
    return packed


def _by_rows(inputs: Inputs, i: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the ranks of some rows of a model at a time: ``(rows, width)`` int32."""
    import torch

    assert inputs.base is not None
    model, base = _table(inputs.models[i]), _table(inputs.base)
    width = model.shape[-1]
    order = torch.arange(width, dtype=torch.int32, device=model.device)
    step = max(1, PART // max(width, 1))
    for start in range(0, model.shape[0], step):
        part = slice(start, start + step)
        places = (model[part].float() - base[part].float()).abs_().sort(dim=-1, stable=True).indices
        found = torch.empty(places.shape, dtype=torch.int32, device=places.device)
        yield part, found.scatter_(-1, places, order.expand(places.shape))


def _table(x: Tensor) -> Tensor:
    """Return a view of ``x`` as rows along its second axis, or as one row."""
    if x.dim() < 3:
        return x.reshape(-1, row_width(x))
    return x.flatten(2).transpose(1, 2)

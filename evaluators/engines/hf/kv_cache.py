"""Keys and values of tokens that were read, in memory that is used again from batch to batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class Memory:
    """Blocks to be written again and again: a CPU's fresh pages cost more than their content."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._taken = 0

    def again(self) -> Memory:
        """Start anew; whoever had a block is done with it."""
        self._taken = 0
        return self

    def empty(self, like: Tensor, rows: int, length: int) -> Tensor:
        """Return the next block, for ``length`` tokens a row."""
        shape = (rows, like.shape[1], length, like.shape[3])
        if like.device.type != "cpu":  # there torch itself keeps what is freed
            return like.new_empty(shape)
        n = math.prod(shape)
        if self._taken == len(self._blocks):
            self._blocks.append(like.new_empty(n))
        block = self._blocks[self._taken]
        if block.numel() < n or block.dtype != like.dtype:
            block = self._blocks[self._taken] = like.new_empty(n)
        self._taken += 1
        return block[:n].view(shape)

    def copied(self, old: Tensor, rows: Sequence[int], room: int) -> Tensor:
        """Return the next block, with some rows of ``old`` and room for more tokens."""
        length = old.shape[2]
        held = self.empty(old, len(rows), length + room)
        if old.device.type != "cpu":
            held[:, :, :length] = old[torch.tensor(rows, device=old.device)]
            return held
        for new, row in zip(held, rows, strict=True):  # half the time of an indexed copy
            new[:, :length] = old[row]
        return held


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Writes a new token behind the others; its parent copies them all for each new token."""

    def __init__(self, room: int, memory: Memory) -> None:
        """Make a layer without tokens, and with ``room`` for them."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room  # for more tokens, when it is full
        self._memory = memory
        self._held: Sequence[Tensor] = ()

    @classmethod
    def holding(cls, keys: Tensor, values: Tensor, length: int) -> RoomyLayer:
        """Return a layer with ``length`` tokens, and room for those behind."""
        layer = cls(keys.shape[-2] - length, Memory())
        layer.lazy_initialization(keys, values)
        layer._held = keys, values
        layer.keys, layer.values = keys[:, :, :length], values[:, :, :length]
        return layer

    def run(self, first: int, end: int) -> RoomyLayer:
        """Return a layer with neighbouring rows of this one, in its memory."""
        keys, values = (held[first:end] for held in self._held)
        return RoomyLayer.holding(keys, values, self.get_seq_length())

    def copied(self, rows: Sequence[int], room: int, memory: Memory) -> RoomyLayer:
        """Return a layer with copies of some rows, and ``room`` for more tokens."""
        assert self.keys is not None
        assert self.values is not None
        keys, values = (memory.copied(t, rows, room) for t in (self.keys, self.values))
        return RoomyLayer.holding(keys, values, self.get_seq_length())

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See the parent."""
        states = key_states, value_states
        rows, _, n, _ = key_states.shape
        if not self.is_initialized:
            self.lazy_initialization(*states)
            self._held = [self._memory.empty(t, rows, max(n, self._room)) for t in states]
        start = self.get_seq_length()
        end = start + n
        if self._held[0].shape[-2] < end:
            self._held = self.copied(range(rows), n + self._room, Memory())._held
        for held, new in zip(self._held, states, strict=True):
            held[:, :, start:end] = new
        keys, values = (held[:, :, :end] for held in self._held)
        self.keys, self.values = keys, values
        return keys, values

"""Two names for weights: a cheap integer hash for live candidates, SHA-256 for parents.

``weights_digest`` sums hashes of a few words each, and integer sums do not care about order: equal
for every thread count and device, in memory and on disk, in one file or in many shards.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WORD = 2**32 - 1
_BLOCK = 2**15  # columns of eight words: 1 MiB
LANES = 8  # words that are folded into one before they are mixed
_STEP, _LANE = 0x9E3779B1, 0x85EBCA77  # odd: 2**32 over the golden ratio, and Murmur3's first


def tensor_digest(name: str, tensor: Tensor, *, fuse: bool = False) -> int:
    """Return a 64-bit hash of a tensor's name, type, shape and bits, as an unsigned integer.

    The bits are taken in words of 4 bytes, little-endian, the last one filled up with zeros. Of
    ``n`` words those at ``i, i + n // 8, i + 2 (n // 8), ...`` are folded into one, which is mixed
    with ``i``; two sums of all these, each modulo ``2**32``, are the two halves.

    Args:
        name: The tensor's.
        tensor: Of any type and shape.
        fuse: Use a fused kernel: the same hash.
    """
    import torch

    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.storage_offset() % 4:
        data = data.clone()  # a view of other width starts at a multiple of it
    whole = data.numel() // (4 * LANES) * (4 * LANES)
    text = f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}".encode()
    key = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    words = torch.tensor([_signed(key >> 32), _signed(key & WORD)], dtype=torch.int32)
    rest = torch.zeros(4 * LANES, dtype=torch.uint8, device=data.device)
    rest[: data.numel() - whole] = data[whole:]
    total = key
    for part, first in ((data[:whole], 0), (rest, 1)):
        table = part.view(torch.int32).view(LANES, -1)
        keys = words.to(table.device) + first
        fold = _fused() if fuse and part.numel() >= 2**18 else _by_blocks
        high, low = fold(table, keys)
        total += ((int(high) & WORD) << 32) + (int(low) & WORD)
    return total % 2**64


def _by_blocks(table: Tensor, keys: Tensor) -> tuple[int, int]:
    """Return what :func:`_folded` does, with temporaries that stay in the cache."""
    high = low = 0
    for start in range(0, table.shape[1], _BLOCK):
        more = _folded(table[:, start : start + _BLOCK], keys, start)
        high, low = high + int(more[0]), low + int(more[1])
    return high, low


def _folded(table: Tensor, keys: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
    """Return two sums over ``(8, n)`` int32 words, each modulo ``2**32``.

    Args:
        table: The words.
        keys: ``(2,)`` int32.
        start: Place of the first column.
    """
    import torch

    high = low = keys[0] ^ keys[1]
    for lane in range(LANES):
        row = table[lane]
        row = row ^ ((row >> 15) & 0x1FFFF)  # two flipped sign bits must not cancel out
        high = high + row * _signed((_STEP * (2 * lane + 1)) & WORD)
        low = low + row * _signed((_LANE * (2 * lane + 1)) & WORD)
    places = torch.arange(table.shape[1], dtype=torch.int32, device=table.device) + start
    high = _mixed(high + places * _signed(_STEP) + keys[0])
    low = _mixed(low ^ (places * _signed(_LANE) + keys[1]))
    return high.sum(dtype=torch.int32), low.sum(dtype=torch.int32)


@functools.cache
def _fused() -> Callable[[Tensor, Tensor], tuple[Any, Any]]:
    import torch

    compiled: Callable[[Tensor, Tensor], tuple[Any, Any]] = torch.compile(
        _folded, dynamic=True, fullgraph=True
    )
    return compiled


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the digest of named tensors in any order: 16 hex characters."""
    return combined(tensor_digest(name, tensor) for name, tensor in tensors)


def combined(digests: Iterable[int]) -> str:
    """Return the digest of a model from those of its tensors: 16 hex characters."""
    return f"{sum(digests) % 2**64:016x}"


def content_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of named tensors (name, type, shape, bytes), in the order given, hex."""
    import torch

    state = hashlib.sha256()
    for name, tensor in tensors:
        state.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _mixed(x: Tensor) -> Tensor:
    """Return ``(n,)`` int32 mixed by lowbias32 (Wellons, Hash Function Prospector, 2018)."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(word: int) -> int:
    """Return the int32 that has the same bits as the unsigned 32-bit ``word``."""
    return word - 2**32 if word >= 2**31 else word

"""Two names for weights: a cheap integer hash for live candidates, SHA-256 for parents.

``weights_digest`` sums one hash per element, and integer sums do not care about order: equal for
every thread count and device, in memory and on disk, in one file or in many shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 2**16  # words per step: 512 KiB, stays in cache


def tensor_digest(name: str, tensor: Tensor) -> int:
    """Return a 64-bit hash of a tensor's name, type, shape and bits, as an unsigned integer.

    The bits are taken in words of 8 bytes, little-endian, the last one filled up with zeros.
    """
    import torch

    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = data.numel() // 8 * 8
    last = torch.zeros(8, dtype=torch.uint8, device=data.device)
    last[: data.numel() - whole] = data[whole:]
    if data.storage_offset() % 8:
        data = data.clone()  # a view of other width starts at a multiple of it
    text = f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}".encode()
    key = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    total = key + _hashed(data[:whole].view(torch.int64), 0, key)
    if whole < data.numel():
        total += _hashed(last.view(torch.int64), whole // 8, key)
    return total % 2**64


def _hashed(words: Tensor, first: int, key: int) -> int:
    """Return the sum of the hashes of ``(n,)`` int64 words, the first at place ``first``."""
    import torch

    total = 0
    for start in range(0, words.numel(), _BLOCK):
        block = words[start : start + _BLOCK]
        counter = torch.arange(block.numel(), device=block.device).add_(first + start)
        mixed = counter.mul_(_signed(0x9E3779B97F4A7C15)).add_(_signed(key)).bitwise_xor_(block)
        total += int(_mix(mixed).sum())
    return total


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


def _mix(x: Tensor) -> Tensor:
    """Finalise ``(n,)`` int64 in place as splitmix64 does (Steele, Lea and Flood, 2014)."""
    for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = x.bitwise_xor_((x >> by).bitwise_and_((1 << (64 - by)) - 1)).mul_(_signed(factor))
    return x


def _signed(word: int) -> int:
    """Return the int64 that has the same bits as the unsigned 64-bit ``word``."""
    return word - 2**64 if word >= 2**63 else word

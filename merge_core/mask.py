"""Random masks from a counter, not from a stream: bit = f(seed, tensor, parent, element index).

Integer arithmetic only, so the same bits on every device, for every thread count and visiting
order, and for one tensor alone as in a full run. The price against ``torch.bernoulli`` is about a
dozen integer operations for each element.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BLOCK = 2**20  # elements hashed at once: 4 MiB of int32, and an aligned block has one high word


def key_for(seed: int, tensor: str, parent: str) -> int:
    """Return the 64-bit key of one mask.

    Args:
        seed: Of the recipe.
        tensor: Name of the output tensor.
        parent: Digest of the parent's weights, so that a moved or renamed folder keeps its masks
            and a dropped parent does not re-draw those of the others.
    """
    text = "\x1f".join([str(seed), tensor, parent]).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def kept(key: int, density: float, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw ``count`` independent bits that are True with probability ``density``.

    Args:
        key: See :func:`key_for`.
        density: In (0, 1], resolved to 2**-32.
        count: Number of elements.
        device: Where the mask is made; the bits are the same everywhere.

    Returns:
        ``(count,)`` bool.
    """
    import torch

    bound = round(density * 2**32)
    mask = torch.ones(count, dtype=torch.bool, device=device)
    if bound >= 2**32:
        return mask
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        bits = _bits(key, start, stop, device)
        # unsigned comparison by flipping the sign bit of both sides
        mask[start:stop] = bits.bitwise_xor_(_signed(0x80000000)) < bound - 2**31
    return mask


def kept_each(key: int, probabilities: Tensor) -> Tensor:
    """Draw independent bits, each True with a probability of its own.

    The coins are those of :func:`kept`: where it keeps an element at a density, this one keeps it
    at the same probability.

    Args:
        key: See :func:`key_for`.
        probabilities: ``(count,)`` float64 in [0, 1], resolved to 2**-32.

    Returns:
        ``(count,)`` bool, on the device of ``probabilities``.
    """
    count = probabilities.numel()
    mask = probabilities.new_empty(count, dtype=probabilities.bool().dtype)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        bounds = (probabilities[start:stop] * 2**32).round_().long() - 2**31
        bits = _bits(key, start, stop, mask.device)
        mask[start:stop] = bits.bitwise_xor_(_signed(0x80000000)) < bounds
    return mask


def _bits(key: int, start: int, stop: int, device: torch.device | str) -> Tensor:
    """Return 32 random bits for each index in one aligned block: ``(stop - start,)`` int32."""
    import torch

    high, low = divmod(start, 2**32)
    index = torch.arange(stop - start, dtype=torch.int32, device=device).add_(_signed(low))
    return _hash(index, (key >> 32) ^ high, key & 0xFFFFFFFF)


def _hash(index: Tensor, high: int, low: int) -> Tensor:
    """Hash ``(n,)`` int32 in place: two keyed rounds of lowbias32 (Wellons, 2018)."""
    x = index.mul_(_signed(0x9E3779B1)).add_(_signed(low))
    for word in (high, None):
        x = _xor_shift(x, 16).mul_(0x7FEB352D)
        x = _xor_shift(x, 15).mul_(_signed(0x846CA68B))
        x = _xor_shift(x, 16)
        if word is not None:
            x = x.bitwise_xor_(_signed(word & 0xFFFFFFFF)).add_(_signed(0x9E3779B9))
    return x


def _xor_shift(x: Tensor, by: int) -> Tensor:
    """Return ``x ^ (x >>> by)``; torch's shift copies the sign bit, so the copies go."""
    return x.bitwise_xor_((x >> by).bitwise_and_((1 << (32 - by)) - 1))


def _signed(word: int) -> int:
    """Return the int32 that has the same bits as the unsigned 32-bit ``word``."""
    return word - 2**32 if word >= 2**31 else word

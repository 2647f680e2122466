"""Random masks from a counter, not from a stream: bit = f(seed, tensor, parent, element index).

Integer arithmetic only, so the same bits on every device, for every thread count and visiting
order, and for one tensor alone as in a full run. The price against ``torch.bernoulli`` is about a
dozen integer operations for each element.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

from merge_core.contract import Tensor

WORD = 2**32 - 1


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


def kept(key: int, density: float | Tensor, count: int) -> Tensor:
    """Draw ``count`` independent bits that are True with probability ``density``.

    Kernels get the same bits from :func:`coins` and :func:`highest`.

    Args:
        key: See :func:`key_for`.
        density: In [0, 1], resolved to 2**-32; or one for each, ``(count,)`` float64.
        count: Number of entries, below ``2**31``.

    Returns:
        ``(count,)`` bool.
    """
    import torch

    flips = coins(torch.arange(count, dtype=torch.int32), *split(key))
    return (flips.double() + 2**31) / 2**32 < density


def split(key: int) -> tuple[int, int]:
    """Return start and step of a key's sequence as signed 32-bit words, for :func:`coins`.

    The step is the lower half, made odd; the start is the upper half and, so that no bit of the key
    is lost, a multiple of the lower one.
    """
    high, low = key >> 32, key & WORD
    return signed((high + low * 0x9E3779B9) & WORD), signed(low | 1)


def highest(density: float) -> int:
    """Return the highest coin that stays with probability ``density``, in [0, 1].

    Coins are whole numbers from ``-2**31`` to ``2**31 - 1``; ``ceil(density 2**32)`` of them stay,
    and of density 0, since no word is lower, one: who calls leaves out what has that density.
    """
    return max(min(math.ceil(density * 2**32), 2**32), 1) - 1 - 2**31


def coins(index: Tensor, start: Any, step: Any) -> Tensor:
    """Return one random whole number for each entry: a keyed Weyl sequence, mixed.

    Each key has a sequence of its own step, ``index * step + start``: no mask is another one
    shifted. The step that :func:`stirred` leaves out decides whether an entry in 65,536 stays.

    Args:
        index: ``(n,)`` int32: the entries' places in the flat tensor, modulo ``2**32``.
        start: See :func:`split`; xor the places' upper word.
        step: See :func:`split`.

    Returns:
        ``(n,)`` int32, uniform from ``-2**31`` to ``2**31 - 1``.
    """
    found: Tensor = stirred(index * step + start)
    return found


def signed(word: int) -> int:
    """Return the int32 that has the same bits as the unsigned 32-bit ``word``."""
    return word - 2**32 if word >= 2**31 else word


def shifted(x: Any, by: int) -> Any:
    """Return ``x >>> by``; a shift copies the sign bit, so the copies go."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def stirred(x: Any) -> Any:
    """Return ``x`` mixed by lowbias32 (Wellons, Hash Function Prospector, 2018), but for its end.

    The last step, ``x ^ shifted(x, 16)``, changes the lower half of a word only. ``x``: int32, any
    shape; or an int, of which 32 bits count, as they do of the result.
    """
    x = (x ^ shifted(x, 16)) * 0x7FEB352D
    return (x ^ shifted(x, 15)) * signed(0x846CA68B)

"""Where to cut a model's whole task vector, exactly, without ever holding it.

Radix selection: non-negative floats have the order of their bit patterns, so a histogram of the
high 16 bits, then one of the low 16 bits inside a single bucket, give the threshold bit by bit.
A sort would need every entry in memory at once; a sampled quantile would not be exact.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.methods.declaration import Cut

if TYPE_CHECKING:
    from torch import Tensor

HALF = 16  # bits of a digit; the sign bit is zero


def cuts(tensors: Callable[[], Iterable[Tensor]], density: float) -> list[Cut]:
    """Return the cut of every tensor that keeps the largest share of them all together.

    Of ``n`` entries exactly ``max(1, floor(density * n))`` of largest magnitude survive; of equals
    at the threshold those of the first tensors, and there those of lowest flat index.

    Args:
        tensors: Yields the ``(*shape)`` float32 task vectors of one model, in the same order at
            each of its three calls. One of them is held at a time. NaN ranks above infinity.
        density: In (0, 1].

    Returns:
        One cut per tensor, all of the same threshold.

    Raises:
        ParameterError: ``density`` is outside (0, 1].

    Source: TIES-Merging, arXiv:2306.01708, step 1, for the whole task vector.
    """
    if not 0 < density <= 1:  # also refuses nan
        raise ParameterError(f"density must be in (0, 1], got {density}")
    high, total = _histogram(bits >> HALF for bits in _patterns(tensors))
    wanted = max(1, math.floor(density * total))
    if total == 0:
        return [Cut(math.inf, 0) for _ in tensors()]
    upper, wanted = _bucket(high, wanted)
    inside = (bits[bits >> HALF == upper] for bits in _patterns(tensors))
    lower, left = _bucket(_histogram(bits & 2**HALF - 1 for bits in inside)[0], wanted)
    pattern = upper << HALF | lower
    threshold = struct.unpack("<f", struct.pack("<I", pattern))[0]
    out = []
    for bits in _patterns(tensors):
        equal = min(left, int((bits == pattern).sum()))
        left -= equal
        out.append(Cut(threshold, equal))
    return out


def _patterns(tensors: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
    """Yield the bit patterns of the magnitudes of every tensor: ``(n,)`` int32, 0 or more."""
    import torch

    for x in tensors():
        yield x.abs().reshape(-1).view(torch.int32)


def _histogram(digits: Iterator[Tensor]) -> tuple[list[int], int]:
    """Return how often each digit occurs, and how many there are."""
    import torch

    counts = torch.zeros(2**HALF, dtype=torch.int64)
    for part in digits:
        counts += part.bincount(minlength=2**HALF).cpu()
    return counts.tolist(), int(counts.sum())


def _bucket(counts: list[int], wanted: int) -> tuple[int, int]:
    """Return the digit of the ``wanted``-th largest, and how many of that digit are wanted."""
    for digit in range(len(counts) - 1, -1, -1):
        if counts[digit] >= wanted:
            return digit, wanted
        wanted -= counts[digit]
    raise AssertionError(f"{wanted} more entries are wanted than there are")

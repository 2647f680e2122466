"""L1 norms as sums of whole numbers: no order, thread count or device changes their bits.

A size is counted in units of a power of two, so that the largest of a tensor is about ``2**31`` of
them; the sum over a tensor is exact, and off by at most half a unit for each entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BITS = 31
Parts = Callable[[], Iterable["Tensor"]]


def unit(largest: float) -> float:
    """Return the unit for sizes up to ``largest``: a power of two, or 1 where it is not finite."""
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return float(2.0 ** max(math.frexp(largest)[1] - BITS, -1000))


def largest(parts: Parts) -> float:
    """Return the greatest entry of float32 tensors that are 0 or more; nan if one is nan."""
    found = [float(part.amax()) for part in parts() if part.numel()]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


def counted(sizes: Tensor, of: float) -> Tensor:
    """Return float64 whole numbers: ``sizes``, 0 or more, in units of ``of``."""
    return (sizes.double() / of).round()


def total(parts: Parts, of: float) -> float:
    """Return the sum of float32 tensors that are 0 or more, in units of ``of`` and exact."""
    # a part of up to 2**21 entries below 2**31 stays below 2**52, where float64 is exact
    sums = [float(counted(part, of).sum()) for part in parts()]
    return sum(map(int, sums)) * of if all(map(math.isfinite, sums)) else math.nan

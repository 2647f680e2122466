"""Sums whose bits depend on no thread count.

torch splits a long sum over threads, so its last bits change with their number. Runs of 2**14
elements stay below the size from which torch splits (32,768); each is summed in float64, and so are
the runs. L1 norms that must also not depend on order are sums of whole numbers: a size is counted
in units of a power of two, of which the largest of a tensor has about ``2**31``; the sum is exact,
and off by at most half a unit for each entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from merge_core.contract import Tensor

RUN = 2**14
BITS = 31  # of the largest size, counted
Parts = Callable[[], Iterable["Tensor"]]


def l1(x: Tensor) -> float:
    """Return ``sum |x|`` over all entries, accumulated in float64. ``x``: any shape."""
    flat = x.reshape(-1)
    return _joined([flat[i : i + RUN].double().abs().sum() for i in range(0, len(flat), RUN)])


def dot(a: Tensor, b: Tensor) -> float:
    """Return ``sum a * b`` over all entries, accumulated in float64. Same shape, any."""
    x, y = a.reshape(-1), b.reshape(-1)
    runs = [slice(i, i + RUN) for i in range(0, len(x), RUN)]
    return _joined([(x[run].double() * y[run].double()).sum() for run in runs])


def dots(part: Callable[[int, int], Iterable[Tensor]], count: int, k: int) -> list[list[float]]:
    """Return the products ``sum x_i x_j`` of ``k`` vectors, accumulated in float64.

    ``part`` gives entries ``start`` to ``stop`` of all vectors, float64; ``count``: their length.
    """
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    sums: dict[tuple[int, int], list[Tensor]] = {pair: [] for pair in pairs}
    for start in range(0, count, RUN):
        vectors = list(part(start, min(start + RUN, count)))
        for i, j in pairs:
            sums[i, j].append((vectors[i] * vectors[j]).sum())
    products = {pair: _joined(runs) for pair, runs in sums.items()}
    return [[products[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]


def _joined(runs: list[Tensor]) -> float:
    """Return the sum of the sums of runs."""
    import torch

    while len(runs) > 1:
        runs = [torch.stack(runs[i : i + RUN]).sum() for i in range(0, len(runs), RUN)]
    return float(runs[0]) if runs else 0.0


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """Return ``sum_j a_ij b_ij``, ``(rows,)`` float64, of two ``(rows, n)`` float32.

    torch splits a single long row over threads, but several rows only between rows; so a single
    row is summed in runs.
    """
    if a.shape[0] == 1:
        return a.new_tensor([dot(a, b)], dtype=a.double().dtype)
    return (a.double() * b.double()).sum(-1)


def largest(parts: Parts) -> float:
    """Return the greatest entry of float32 tensors that are 0 or more; nan if one is nan."""
    found = [float(part.amax()) for part in parts() if part.numel()]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


def unit(largest: float) -> float:
    """Return the unit for sizes up to ``largest``: a power of two, or 1 where it is not finite."""
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return float(2.0 ** max(math.frexp(largest)[1] - BITS, -1000))


def counted(parts: Parts, unit: float) -> float:
    """Return the sum of float32 tensors that are 0 or more, in whole units and so exact."""
    # a part of up to 2**21 entries below 2**31 stays below 2**52, where float64 is exact
    sums = [float(part.double().mul_(1 / unit).round_().sum()) for part in parts()]
    return sum(map(int, sums)) * unit if all(map(math.isfinite, sums)) else math.nan

"""Sums whose bits do not depend on the thread count.

torch splits a long sum over threads, so its last bits change with their number. Runs of 2**14
elements stay below the size from which torch splits (32,768); each is summed in float64, and so are
the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RUN = 2**14


def _total(terms: Callable[[int, int], Tensor], count: int) -> float:
    import torch

    runs = [terms(i, min(i + RUN, count)).sum() for i in range(0, count, RUN)]
    if not runs:
        return 0.0
    while len(runs) > 1:
        runs = [torch.stack(runs[i : i + RUN]).sum() for i in range(0, len(runs), RUN)]
    return float(runs[0])


def l1(x: Tensor) -> float:
    """Return ``sum |x|`` over all entries, accumulated in float64. ``x``: any shape."""
    flat = x.reshape(-1)
    return _total(lambda i, j: flat[i:j].double().abs(), flat.numel())


def dot(a: Tensor, b: Tensor) -> float:
    """Return ``sum a * b`` over all entries, accumulated in float64. Same shape, any."""
    x, y = a.reshape(-1), b.reshape(-1)
    return _total(lambda i, j: x[i:j].double() * y[i:j].double(), x.numel())


def dots(part: Callable[[int, int], Iterable[Tensor]], count: int, k: int) -> list[list[float]]:
    """Return the products ``sum x_i x_j`` of ``k`` vectors, accumulated in float64.

    Args:
        part: Gives entries ``start`` to ``stop`` of all vectors, float64.
        count: Length of the vectors.
        k: How many there are.
    """
    import torch

    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    sums: list[list[Tensor]] = [[] for _ in pairs]
    for start in range(0, count, RUN):
        vectors = list(part(start, min(start + RUN, count)))
        for place, (i, j) in enumerate(pairs):
            sums[place].append((vectors[i] * vectors[j]).sum())
    found = [[0.0] * k for _ in range(k)]
    for place, (i, j) in enumerate(pairs):
        runs = sums[place]
        while len(runs) > 1:
            runs = [torch.stack(runs[n : n + RUN]).sum() for n in range(0, len(runs), RUN)]
        found[i][j] = found[j][i] = float(runs[0]) if runs else 0.0
    return found

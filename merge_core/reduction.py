"""Sums whose bits do not depend on the thread count.

torch splits a long sum over threads, so its last bits change with their number. Runs of 2**14
elements stay below the size from which torch splits (32,768); each is summed in float64, and so are
the runs.
"""

from __future__ import annotations

from collections.abc import Callable
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


def norm(x: Tensor) -> float:
    """Return the Frobenius norm over all entries, accumulated in float64. ``x``: any shape."""
    return float(dot(x, x) ** 0.5)


def kth_smallest(x: Tensor, k: int) -> float:
    """Return the entry that has ``k`` entries before it in ascending order.

    Args:
        x: ``(n,)`` float32.
        k: From 0 to n - 1.
    """
    import numpy as np

    if x.device.type == "cpu":  # eight times as fast as kthvalue (dev/LOG.md)
        return float(np.partition(x.numpy(), k)[k])
    return float(x.kthvalue(k + 1).values)

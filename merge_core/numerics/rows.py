"""Dot products of every row, in float64, with bits that no thread count changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.numerics.exact_sums import dot

if TYPE_CHECKING:
    from torch import Tensor


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """Return ``sum_j a_ij b_ij`` for every row.

    Args:
        a: ``(rows, n)`` float32.
        b: ``(rows, n)`` float32.

    Returns:
        ``(rows,)`` float64. torch splits a single long row over threads, but several rows only
        between rows; so a single row is summed in runs.
    """
    if a.shape[0] == 1:
        return a.new_tensor([dot(a, b)], dtype=a.double().dtype)
    return (a.double() * b.double()).sum(-1)

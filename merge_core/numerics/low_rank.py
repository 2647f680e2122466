"""The nearest matrix of a rank, as two factors, and how far it is: by one eigendecomposition.

The squared singular values of ``D`` are the eigenvalues of ``D D^T``, which is as small as the
shorter side of ``D``: in float64 that gives the largest ones of float32 data to all their digits,
and is many times faster than a decomposition of a wide matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from merge_core.contract import Tensor
from merge_core.errors import NonFiniteError

BLOCK = 2**22  # entries that are held in float64 at a time


@dataclass(frozen=True)
class Factors:
    """``B A``, of rank ``r``, in place of a matrix ``D``."""

    a: Tensor  # (r, n), of the type that was asked for
    b: Tensor  # (m, r)
    error: float  # |D - B A|, the root of the sum of squares, of the factors as they are here
    largest: float  # the largest entry of |D - B A|
    norm: float  # |D|

    @property
    def rank(self) -> int:
        """``r``."""
        return len(self.a)


def nearest(d: Tensor, rank: int, dtype: str = "float32") -> Factors:
    """Return the factors of the matrix of at most ``rank`` that is nearest to ``d``.

    ``D = U diag(s) V^T`` gives ``B = U sqrt(s)`` and ``A = sqrt(s) V^T`` of the largest ``s``
    (Eckart and Young); singular values that are zero within rounding are left out, so that a matrix
    of lower rank has as many columns as it needs.

    Args:
        d: ``(m, n)`` float32, finite.
        rank: At least 1.
        dtype: Of the factors; what rounding to it costs is part of the error.

    Raises:
        NonFiniteError: ``d`` has NaN or infinite entries.
    """
    import torch

    if not bool(d.isfinite().all()):
        raise NonFiniteError(f"{tuple(d.shape)} numbers that are not all finite have no factors")
    tall = d.shape[0] > d.shape[1]
    wide = d.T if tall else d
    squares, vectors = torch.linalg.eigh(_gram(wide))  # in rising order
    zero = float(squares[-1]) * (max(d.shape) * 2**-52)
    squares, vectors = squares.flip(0)[:rank], vectors.flip(1)[:, :rank]
    r = int((squares > max(zero, 0.0)).sum())
    roots = squares[:r].sqrt().sqrt()  # of the singular values
    left = vectors[:, :r]
    right = torch.cat([left.T @ wide[:, part].double() for part in _parts(wide)], 1)
    b, a = left * roots, right / roots[:, None]
    if tall:
        a, b = b.T, a.T
    a, b = (x.contiguous().to(getattr(torch, dtype)) for x in (a, b))
    return Factors(a, b, *distance(d, a, b), norm(d))


def distance(d: Tensor, a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return ``|D - B A|`` and its largest entry, computed in float64 of what the factors hold."""
    total, largest = 0.0, 0.0
    for part in _parts(d):
        rest = d[:, part].double().sub_(b.double() @ a[:, part].double())
        total += float((rest * rest).sum())
        largest = max(largest, float(rest.abs().max()))
    return math.sqrt(total), largest


def norm(x: Tensor) -> float:
    """Return the root of the sum of squares, computed in float64."""
    flat = x.reshape(-1)
    parts = [flat[i : i + BLOCK].double() for i in range(0, len(flat), BLOCK)]
    return math.sqrt(sum(float((part * part).sum()) for part in parts))


def _gram(wide: Tensor) -> Tensor:
    """Return ``D D^T`` in float64, ``(m, m)``."""
    import torch

    total = torch.zeros(len(wide), len(wide), dtype=torch.float64)
    for part in _parts(wide):
        block = wide[:, part].double()
        total += block @ block.T
    return total


def _parts(d: Tensor) -> list[slice]:
    """Return spans of columns that fit into a block."""
    width = max(1, BLOCK // max(1, d.shape[0]))
    return [slice(i, i + width) for i in range(0, d.shape[1], width)]

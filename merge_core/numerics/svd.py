"""Singular value decompositions for merges of matrices: float64, one thread, no empty directions.

LAPACK shares its work among threads, so its last bits change with their number. It also gives
singular vectors for singular values of zero: any basis of what is left, another in every build.
Both would make a merge depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from merge_core.contract import Tensor
from merge_core.errors import NonFiniteError
from merge_core.kernels.threads import one_thread, share

LARGE = 2**25  # entries of matrices that are decomposed one after the other: each takes 40 bytes
Result = TypeVar("Result")


def decomposed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``U, s, V^T`` with ``x = U diag(s) V^T``, of the ``r`` singular values not zero.

    Zero means within rounding: up to ``max(m, n) * 2**-52`` times the largest.

    Args:
        x: ``(m, n)`` float32 or float64.

    Returns:
        ``(m, r)``, ``(r,)`` in falling order, ``(r, n)``, float64.

    Raises:
        NonFiniteError: ``x`` has NaN or infinite entries.
    """
    import torch

    if not bool(x.isfinite().all()):
        raise NonFiniteError(
            f"a task vector of shape {tuple(x.shape)} has NaN or infinite entries, so it has no "
            f"singular values; mend the parent or leave it out"
        )
    with one_thread():
        u, s, vt = torch.linalg.svd(x.double(), full_matrices=False)
    r = int((s > s[:1] * (max(x.shape) * 2**-52)).sum())
    return u[:, :r], s[:r], vt[:r]


def isometry(x: Tensor) -> Tensor:
    """Return the matrix nearest to ``x`` of which every singular value is 1, or 0 as in ``x``.

    The orthogonal Procrustes solution ``P Q^T`` from ``x = P diag(s) Q^T``. ``x``, result:
    ``(m, n)`` float64.

    Raises:
        NonFiniteError: ``x`` has NaN or infinite entries.
    """
    p, _, qt = decomposed(x)
    return product(p, qt)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product of ``(m, r)`` and ``(r, n)``, both float64."""
    with one_thread():
        return a @ b


def of_each(work: Callable[[Tensor], Result], matrices: Sequence[Tensor]) -> list[Result]:
    """Return ``work`` of each matrix: at once, by a thread each, unless they are large.

    LAPACK divides by the rows and columns, first a tall or wide matrix into a triangle: time and
    memory are linear in the longer side.
    """
    if any(x.numel() > LARGE for x in matrices):
        return [work(x) for x in matrices]
    return share(work, matrices)

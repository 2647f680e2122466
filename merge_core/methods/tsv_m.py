"""Gives each task a share of the singular directions, and makes those of all tasks orthogonal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param, Prepared
from merge_core.methods.singular import WEIGHT, decomposed, entry, isometry, product, toward
from merge_core.methods.task_vectors import LAMBDA

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return the direction ``U' diag(s) V'^T``, ``U'`` and ``V'`` the isometries nearest ``U, V``.

    Of every ``d_i = U_i diag(s_i) V_i^T`` the first ``max(1, floor(rank_share * min(m, n) / k))``
    columns stay, but none of singular value zero; ``U``, ``V`` and ``s`` are these side by side,
    ``s_i`` times ``weight_i``. A tensor that is no matrix gets ``lambda`` times the mean of the
    ``weight_i d_i``.

    Raises:
        NonFiniteError: A matrix has NaN or infinite entries.

    Source: TSV-Merge, arXiv:2412.00081; there ``rank_share`` and ``weight`` are 1.
    """
    return toward(inputs, lambda: _direction(inputs), inputs.number("rank_share"))


def _direction(inputs: Inputs) -> Tensor:
    u, s, vt = _joined(inputs)
    return product(isometry(u) * s, isometry(vt)).float()


def _joined(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Return all tasks' columns of ``U``, values and rows of ``V^T``: (m, r), (r,), (r, n)."""
    import torch

    deltas = inputs.deltas()
    share = inputs.number("rank_share") * min(deltas[0].shape) / len(deltas)
    rank = max(1, math.floor(share))
    us, values, vts = [], [], []
    for delta, weight in zip(deltas, inputs.numbers("weight"), strict=True):
        u, s, vt = decomposed(delta)
        us.append(u[:, :rank].clone())  # a slice would hold all columns
        values.append(s[:rank] * weight)
        vts.append(vt[:rank].clone())
    return torch.cat(us, 1), torch.cat(values), torch.cat(vts)


METHOD = Method(
    name="tsv_m",
    prepare=_prepare,
    entry=entry,
    params=(
        LAMBDA,
        WEIGHT,
        Param(
            "rank_share",
            "share kept of the singular directions that fall to each model, min(m, n) / k",
            low=0.1,
            high=1,
            above=0,
            maximum=1,
            default=1.0,
            scope="shared",
        ),
    ),
    base="required",
    models=(2, None),
    reference="arXiv:2412.00081",
)

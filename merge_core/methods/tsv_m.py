"""Gives each task a share of the singular directions, and makes those of all tasks orthogonal."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from merge_core.contract import Inputs, Method, Param, Prepared
from merge_core.methods.shared.svd_merge import WEIGHT, entry, prepared
from merge_core.methods.shared.task_vectors import LAMBDA
from merge_core.numerics.svd import decomposed, isometry, product

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Return ``U'_i diag(s_i) V'_i^T`` of every model, ``U'`` and ``V'`` isometries near ``U, V``.

    Of every ``d_i = U_i diag(s_i) V_i^T`` the first ``max(1, floor(rank_share * min(m, n) / k))``
    columns stay, but none of singular value zero; ``U`` and ``V`` are these side by side, ``U'_i``
    and ``V'_i`` the parts of the nearest isometries that come from model ``i``. Nothing of it
    depends on the weights. A tensor that is no matrix gets the mean of the ``weight_i d_i``.

    Raises:
        NonFiniteError: A matrix has NaN or infinite entries.

    Source: TSV-Merge, arXiv:2412.00081; there ``rank_share`` and ``weight`` are 1.
    """
    weights, share = inputs.numbers("weight"), inputs.number("rank_share")
    find = partial(_directions, inputs, share)
    version = None if share == 1 else share
    directions = inputs.remembered("directions", range(len(weights)), find, version)
    return prepared(inputs, directions, weights)


def _directions(inputs: Inputs, share: float) -> list[Tensor]:
    deltas = inputs.deltas()
    count = len(deltas)
    if deltas[0].dim() != 2:
        return [delta / count for delta in deltas]
    rank = max(1, math.floor(share * min(deltas[0].shape) / count))
    u, values, vt = _side_by_side(deltas, rank)
    u, vt = isometry(u), isometry(vt)
    found, start = [], 0
    for s in values:
        part = slice(start, start + len(s))
        found.append(product(u[:, part] * s, vt[part]).float())
        start = part.stop
    return found


def _side_by_side(deltas: list[Tensor], rank: int) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return all models' columns of ``U``, values and rows of ``V^T``: (m, r), (r_i,), (r, n)."""
    import torch

    us, values, vts = [], [], []
    for delta in deltas:
        u, s, vt = decomposed(delta)
        us.append(u[:, :rank].clone())  # a slice would hold all columns
        values.append(s[:rank])
        vts.append(vt[:rank].clone())
    return torch.cat(us, 1), values, torch.cat(vts)


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
    source="arXiv:2412.00081",
    once_ns=700,  # of a matrix 1,000 wide; more in wider ones
    once_bytes=4,
)

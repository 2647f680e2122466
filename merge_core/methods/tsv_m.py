"""Gives each task a share of the singular directions, and makes those of all tasks orthogonal."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from merge_core.contract import Inputs, Method, Prepared, Tensor, required, shared
from merge_core.methods.shared.svd_merge import WEIGHT, entry, prepared
from merge_core.methods.shared.task_vectors import LAMBDA
from merge_core.methods.shared.weighted_sum import weighted
from merge_core.numerics.svd import decomposed, isometry, of_each, product

SHARE = "share kept of the singular directions that fall to each model, min(m, n) / k"


def _prepare(inputs: Inputs) -> Prepared:
    weights, share = inputs.numbers("weight"), inputs.number("rank_share")
    find = partial(_directions, inputs, share)
    version = None if share == 1 else share
    directions = inputs.remembered("directions", range(len(weights)), find, version)
    return prepared(inputs, directions, weights)


def _directions(inputs: Inputs, share: float) -> list[Tensor]:
    """Return ``U'_i diag(s_i) V'_i^T`` of every model; nothing of it depends on the weights."""
    deltas = inputs.deltas()
    count = len(deltas)
    if deltas[0].dim() != 2:
        return [delta / count for delta in deltas]
    rank = max(1, math.floor(share * min(deltas[0].shape) / count))
    u, values, vt = _side_by_side(deltas, rank)
    u, vt = of_each(isometry, [u, vt])
    found, start = [], 0
    for s in values:
        part = slice(start, start + len(s))
        found.append(product(u[:, part] * s, vt[part]).float())
        start = part.stop
    return found


def _side_by_side(deltas: list[Tensor], rank: int) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Return all models' columns of ``U``, values and rows of ``V^T``: (m, r), (r_i,), (r, n)."""
    import torch

    def first(delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vt = decomposed(delta)
        return u[:, :rank].clone(), s[:rank], vt[:rank].clone()  # a slice would hold all columns

    us, values, vts = zip(*of_each(first, deltas), strict=True)
    return torch.cat(us, 1), values, torch.cat(vts)


def reference(inputs: Inputs) -> Tensor:
    """Return the merge by whole decompositions; directions of singular value zero are left out."""
    import torch

    deltas, weights, share = inputs.deltas(), inputs.numbers("weight"), inputs.number("lambda")
    if deltas[0].dim() != 2:
        return required(inputs.base) + share * weighted(deltas, weights) / len(deltas)
    rank = max(1, math.floor(inputs.number("rank_share") * min(deltas[0].shape) / len(deltas)))
    parts = [decomposed(delta) for delta in deltas]
    u = isometry(torch.cat([u[:, :rank] for u, _, _ in parts], 1))
    vt = isometry(torch.cat([vt[:rank] for _, _, vt in parts]))
    s = torch.cat([w * s[:rank] for w, (_, s, _) in zip(weights, parts, strict=True)])
    return required(inputs.base) + share * (u * s) @ vt


METHOD = Method(
    name="tsv_m",
    reference=reference,
    formula="d_i = U_i diag(s_i) V_i^T, the first rank_share min(m, n) / k directions of it\n"
    "U = [U_1 ... U_k], U' the nearest isometry, V' alike, s = [weight_1 s_1 ... weight_k s_k]\n"
    "out = W_b + lambda U' diag(s) V'^T\n"
    "a tensor that is no matrix: out = W_b + lambda mean_i weight_i d_i",
    about=(
        "Task singular vectors (Gargiulo et al., 2024): each task vector of a matrix is "
        "decomposed, and its strongest singular directions are kept, as many for each task as fit "
        "into the matrix together. Directions of different tasks overlap, which is how tasks "
        "interfere; so they are replaced by the nearest ones that are orthogonal to each other "
        "(Procrustes) and put together with their old singular values. Vectors and norms are "
        "averaged."
    ),
    when="Several models, each tuned for a task of its own, whose task vectors disturb each other: "
    "each gets its own orthogonal directions. Matrices are decomposed, so it is slow to build.",
    prepare=_prepare,
    entry=entry,
    params=(
        LAMBDA,
        replace(WEIGHT, smooth=False),  # the decomposition depends on it
        shared("rank_share", SHARE, 0.1, 1, above=0, maximum=1, default=1.0),
    ),
    base="required",
    models=(2, None),
    source="arXiv:2412.00081",
    once_ns=700,  # of a matrix 1,000 wide; more in wider ones
    once_bytes=4,
)

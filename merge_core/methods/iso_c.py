"""Sums task vectors, then makes every direction of the sum's span equally strong."""

from __future__ import annotations

from dataclasses import replace

from merge_core.contract import Inputs, Method, Prepared, Tensor, required
from merge_core.methods.shared.svd_merge import WEIGHT, entry, prepared
from merge_core.methods.shared.task_vectors import LAMBDA
from merge_core.methods.shared.weighted_sum import weighted
from merge_core.numerics.svd import decomposed, product


def _prepare(inputs: Inputs) -> Prepared:
    weights = inputs.numbers("weight")
    every = range(len(weights))
    direction = inputs.remembered("direction", every, lambda: _direction(inputs), tuple(weights))
    return prepared(inputs, [direction], [1.0])


def _direction(inputs: Inputs) -> Tensor:
    """Return ``sigma U V^T``.

    Singular values of zero, whose directions are arbitrary, are left out; in the paper they count
    in the mean. What is no matrix is treated as in the authors' program.
    """
    summed = weighted(inputs.deltas(), inputs.numbers("weight"))
    if summed.dim() != 2:
        return summed / len(inputs.models)
    u, s, vt = decomposed(summed)
    sigma = float(s.sum()) / max(1, len(s))
    return (product(u, vt) * sigma).float()


def reference(inputs: Inputs) -> Tensor:
    """Return the merge by a whole decomposition; directions of singular value zero are left out."""
    out = weighted(inputs.deltas(), inputs.numbers("weight"))
    if out.dim() == 2:
        u, s, vt = decomposed(out)
        out = u @ vt * s.sum() / max(1, len(s))
    else:
        out = out / len(inputs.models)
    return required(inputs.base) + inputs.number("lambda") * out


METHOD = Method(
    name="iso_c",
    reference=reference,
    formula="sum_i weight_i d_i = U diag(s) V^T, sigma = mean of s\n"
    "out = W_b + lambda sigma U V^T\n"
    "a tensor that is no matrix: out = W_b + lambda mean_i weight_i d_i",
    about=(
        "Isotropic merging (Marczak et al., 2025) adds the task vectors up and then makes the "
        "sum's singular values equal, all at their mean. The sum is ruled by the directions that "
        "several tasks share; a task whose directions are weak in it is heard as loudly as the "
        "others afterwards. The span stays, only the strengths in it change. Tensors that are no "
        "matrices are averaged."
    ),
    when="Several tasks of which few would rule the sum: every direction that any of them uses "
    "becomes equally strong. It decomposes matrices anew for every set of weights, which is slow.",
    prepare=_prepare,
    entry=entry,
    params=(LAMBDA, replace(WEIGHT, smooth=False)),
    base="required",
    models=(2, None),
    source="arXiv:2502.04959",
)

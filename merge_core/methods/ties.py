"""Trim, elect sign, merge: of each task vector the largest entries, if they agree in sign."""

from __future__ import annotations

from merge_core.contract import Inputs, Method, Param, Prepared
from merge_core.methods.shared.sparsify import Rule
from merge_core.methods.shared.task_vectors import CONSENSUS, entry, params, prepared


def _prepare(inputs: Inputs) -> Prepared:
    """Trim ``d_i`` to its ``density`` of largest entries, elect signs, add what agrees.

    ``trim`` says of what ``density`` is a share: of each tensor, or of the model's whole task
    vector, as in the paper. ``rescale`` sees one tensor either way.
    """
    return prepared(inputs, Rule("largest"), elect=True)


TRIM = Param(
    "trim",
    "density is a share of each tensor, or (global) of the model's whole task vector",
    default="tensor",
    scope="shared",
    choices=("tensor", "global"),
)
METHOD = Method(
    name="ties",
    prepare=_prepare,
    entry=entry,
    params=(*params(start=0.5, normalized=True, rescaled=False), CONSENSUS, TRIM),
    base="required",
    models=(1, None),
    source="arXiv:2306.01708",
    once_ns=47,
)

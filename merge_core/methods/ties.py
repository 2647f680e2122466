"""Trim, elect sign, merge: of each task vector the largest entries, if they agree in sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param, Values
from merge_core.methods.sparsify import beyond, largest, params, sparsified
from merge_core.methods.task_vectors import CONSENSUS, merged

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """Trim ``d_i`` to its ``density`` of largest entries, elect signs, add what agrees.

    ``trim`` says of what ``density`` is a share: of each tensor, or of the model's whole task
    vector, as in the paper. ``rescale`` sees one tensor either way.

    Returns:
        ``(*shape)`` float32.
    """
    whole = inputs.shared["trim"] == "global" and inputs.cuts

    def keep(delta: Tensor, values: Values, i: int) -> Tensor:
        cut = inputs.cuts[i] if whole else None
        return largest(delta, float(values["density"])) if cut is None else beyond(delta, cut)

    return merged(inputs, sparsified(inputs, keep), elect=True)


TRIM = Param(
    "trim",
    "density is a share of each tensor, or (global) of the model's whole task vector",
    default="tensor",
    scope="shared",
    choices=("tensor", "global"),
)
METHOD = Method(
    name="ties",
    merge=_merge,
    params=(*params(start=0.5, normalized=True, rescaled=False), CONSENSUS, TRIM),
    base="required",
    models=(1, None),
    reference="arXiv:2306.01708",
)

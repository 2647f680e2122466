"""Trim, elect sign, merge: of each task vector the largest entries, if they agree in sign."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor, shared
from merge_core.methods.shared.elect import CONSENSUS, ELECTED
from merge_core.methods.shared.sparsify.largest import LARGEST, trim_largest
from merge_core.methods.shared.task_vectors import add_elected, entry, params, prepared, weigh


def reference(inputs: Inputs) -> Tensor:
    """Trim, elect, merge; as for ``trim: global`` where the tensor is a whole task vector."""
    each = zip(inputs.deltas(), inputs.numbers("density"), strict=True)
    trimmed = [trim_largest(delta, share) for delta, share in each]
    return add_elected(inputs, weigh(inputs, trimmed))


WHOLE = "density is a share of each tensor, or (global) of the model's whole task vector"
TRIM = shared("trim", WHOLE, default="tensor", choices=("tensor", "global"))
METHOD = Method(
    name="ties",
    prepare=partial(prepared, rule=LARGEST, elects=True),
    entry=entry,
    params=(*params(start=0.5, normalized=True, rescaled=False), CONSENSUS, TRIM),
    base="required",
    models=(1, None),
    source="arXiv:2306.01708",
    formula=(
        "x_i = the floor(density_i n) largest entries of d_i, at least one, else 0\n"
        "density_i 0: x_i = 0\n" + ELECTED
    ),
    about=(
        "TIES-Merging (Yadav et al., 2023) adds task vectors in three steps. Trim: of each only "
        "the share density of its entries with the largest size stays. Elect: each entry of the "
        "result gets the sign that has more weight behind it. Merge: only the models that agree "
        "with this sign are added there, or averaged with normalize. So small changes, mostly "
        "noise, do not thin out large ones, and opposite changes do not cancel each other."
    ),
    when=(
        "Several models fine-tuned from one base, whose plain sum loses to interference: "
        "small entries that are noise, and signs that cancel each other out."
    ),
    reference=reference,
    once_ns=47,
)

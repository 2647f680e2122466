"""How the entries that stay make up for those that were dropped."""

from __future__ import annotations

from collections.abc import Iterator

from merge_core.contract import Inputs, Param, Prepared, Tensor, Value, shared
from merge_core.kernels.eager import of_model
from merge_core.methods.shared.sparsify.cuts import sizes
from merge_core.methods.shared.sparsify.largest import cut_of_whole
from merge_core.methods.shared.sparsify.rule import PART, Rule, terms
from merge_core.numerics import exact_sums

LEAST = 1e-7  # L1 norm from which there is something to rescale, as the mergekit dialect has it
MODES = "l1 (true): give the kept entries the L1 norm of all; inverse_density: divide by density"


def rescale(default: bool) -> Param:
    """Return the parameter ``rescale``; true means ``l1``, false means ``none``."""
    modes = (True, False, "l1", "inverse_density", "none")
    return shared("rescale", MODES, default=default, choices=modes)


def rescaled(kept: Tensor, delta: Tensor, density: float, mode: Value) -> Tensor:
    """Return what was kept of a task vector, scaled up for what was dropped.

    Args:
        kept: ``(*shape)`` float32: ``delta``, zero where an entry was dropped.
        delta: ``(*shape)`` float32.
        density: In [0, 1]; at 0 nothing was kept.
        mode: ``none``: as it is. ``inverse_density``: divided by the density, unbiased, as in the
            DARE paper. ``l1``: given the L1 norm of ``delta``, unless one is below 1e-7.
    """
    if mode in (False, "none") or density == 0:
        return kept
    if mode == "inverse_density":
        return kept / density
    before, after = delta.double().abs().sum(), kept.double().abs().sum()
    return kept * float(before / after) if min(before, after) >= LEAST else kept


def scale(inputs: Inputs, found: Prepared, rule: Rule, i: int) -> float:
    """Return the factor of :func:`rescaled` on model ``i``; 1 where density is 1, 0 where it is 0.

    ``found``: by the rule's ``find``.
    """
    values = inputs.values[i]
    share, mode = float(values["density"]), inputs.shared["rescale"]
    if share <= 0:
        return 0.0
    if share >= 1 or mode in (False, "none"):
        return 1.0
    if mode == "inverse_density":
        return 1.0 / share
    parts = sizes(inputs, i)

    def left() -> Iterator[Tensor]:
        for block in of_model(inputs, found, i, PART):
            yield terms(block, rule, [1.0])[0].abs()

    unit = exact_sums.unit(inputs.remembered("largest", [i], lambda: exact_sums.largest(parts)))
    before = inputs.remembered("l1", [i], lambda: exact_sums.counted(parts, unit))
    what = ("kept l1", rule.name, share, values.get("epsilon"), values.get("gamma"), inputs.keys[i])
    whole = cut_of_whole(inputs, i)
    after = inputs.remembered((*what, whole), [i], lambda: exact_sums.counted(left, unit))
    return float(before / after) if before >= LEAST and after >= LEAST else 1.0

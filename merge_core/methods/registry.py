"""The merge methods by name; third parties add theirs as entry points ``mergetune.methods``."""

from __future__ import annotations

from merge_core.contract import Method
from merge_core.plugins import Registry

METHODS = Registry(
    "merge method",
    "mergetune.methods",
    {
        name: f"merge_core.methods.{name}:METHOD"
        for name in (
            "arcee_fusion",
            "breadcrumbs",
            "breadcrumbs_ties",
            "consensus_ta",
            "dare_linear",
            "dare_ties",
            "della",
            "della_linear",
            "iso_c",
            "karcher",
            "linear",
            "model_stock",
            "multislerp",
            "nearswap",
            "nuslerp",
            "passthrough",
            "ram",
            "ramplus_tl",
            "sce",
            "slerp",
            "task_arithmetic",
            "ties",
            "tsv_m",
        )
    },
)


def method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        UnknownNameError: No method has that name.
    """
    found = METHODS.get(name)
    assert isinstance(found, Method), f"{name} is registered but is no Method"
    return found

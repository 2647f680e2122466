"""Parents of one merge are of one architecture, or the user says that it may be otherwise.

Llama and Mistral have tensors of the same names and shapes, and one mean of the two is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core import consent
from merge_core.errors import CheckpointError


def kind_of(config: Mapping[str, Any]) -> str:
    """Return which architecture a config names, or nothing."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else ""
    return str(config.get("model_type") or first)


def refuse_unlike(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse parents of unlike architectures, unless the user allows them.

    Args:
        configs: Parent -> contents of its ``config.json``; one that names nothing fits all.

    Raises:
        CheckpointError: Two are of different architectures.
    """
    kinds = {name: kind for name, config in configs.items() if (kind := kind_of(config))}
    first = next(iter(kinds), "")
    other = next((name for name, kind in kinds.items() if kind != kinds[first]), None)
    if other is not None and not consent.crimes():
        raise CheckpointError(
            f"{other}: its architecture is {kinds[other]}, that of {first} is {kinds[first]}; "
            f"expected one for all parents of a merge; where their tensors mean the same, merge "
            f"with {consent.CRIMES}"
        )

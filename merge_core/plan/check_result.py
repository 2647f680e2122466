"""Names and shapes of a result are those that its own config makes, or it is never begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.architecture import model_class
from merge_core.errors import CheckpointError, ShapeError


def check_result(
    config: Mapping[str, Any],
    config_from: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    stacked: bool = False,
) -> None:
    """Check that transformers, given the config, fills a model from these tensors and no others.

    Of tensors that the class ties, one is enough.

    Args:
        config: The result's.
        config_from: The parent that it comes from, for messages.
        shapes: The result's tensors.
        stacked: Whether the config was made for a stack, and is one of many.

    Raises:
        CheckpointError: A tensor is missing or left over, as where a layer stands at a place at
            which the config counts another kind of layer.
        ShapeError: A tensor has another shape than the config gives it.
    """
    facts = model_class.read(config, config_from, len(shapes), keep=not stacked)
    if missing := facts.lacking(shapes):
        raise CheckpointError(
            f"{missing[0]}: the result's config, that of {config_from}, asks for it and the recipe "
            f"gives no such tensor ({len(missing)} such); choose layers that fit the config there, "
            f"or mend the config"
        )
    if extra := [name for name in shapes if name not in facts.shapes]:
        raise CheckpointError(
            f"{extra[0]}: the result's config, that of {config_from}, makes no such tensor "
            f"({len(extra)} such); choose layers that fit the config there, or mend the config"
        )
    for name, shape in shapes.items():
        if shape != facts.shapes[name]:
            others = facts.vocabulary & shapes.keys() - {name}
            if name in facts.vocabulary and any(shapes[x] == facts.shapes[x] for x in others):
                raise ShapeError(
                    f"{name}: {shape[0]} tokens, where the embedding and the config, that of "
                    f"{config_from}, have {facts.shapes[name][0]}; give all slices' models one "
                    f"vocabulary with tokenizer: {{source: union}} or {{source: base}}"
                )
            raise ShapeError(
                f"{name}: the result's config, that of {config_from}, makes it "
                f"{facts.shapes[name]}, the parents have {shape}; mend the config"
            )

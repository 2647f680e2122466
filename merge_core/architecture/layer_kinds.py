"""What kind of layer stands where: what a class decides for a layer by its number or its config.

Two layers may have the same tensors and compute different things: sliding or full attention, with
or without rotary positions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from merge_core.architecture.stored_names import stored_form
from merge_core.errors import CheckpointError

PLAIN = (str, bool, int, type(None))
Kind = Mapping[str, str | bool | int | None]  # place of an attribute in the layer -> its value


def of_layers(model: Any, stack: str) -> tuple[Kind, ...]:
    """Return the kind of every layer of a stack.

    Args:
        model: Without weights.
        stack: What stands before the layers' numbers in stored names, such as ``model.layers``.

    Raises:
        CheckpointError: The class has no such list of modules.
    """
    return tuple(_kind(layer) for layer in modules(model, stack))


def difference(a: Kind, at: int, b: Kind, to: int) -> str | None:
    """Return an attribute in which layer number ``at``, ``a``, is other than ``to``, ``b``, is.

    What only counts the layers is none.
    """
    for name in [*(x for x in a if x in b), *sorted(a.keys() ^ b.keys())]:
        one, other = a.get(name), b.get(name)
        counts = type(one) is type(other) is int and one - at == other - to
        if one != other and not counts:
            return name
    return None


def modules(model: Any, stack: str) -> list[Any]:
    """Return the modules of a stack's layers, in their order; for the arguments see ``of_layers``.

    Raises:
        CheckpointError: The class has no such list of modules.
    """
    import torch

    start = f"{stack}." if stack else ""
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)) and len(module):
            for part, tensor in module.state_dict(prefix=f"{name}.").items():
                stored = stored_form(model, part, tensor)[0][0]
                if stored.startswith(f"{start}0.") and part.startswith(f"{name}.0."):
                    return [*module]
                break
    raise CheckpointError(f"{stack}: {type(model).__name__} has no such list of layers")


def _kind(layer: Any) -> Kind:
    return {
        sys.intern(f"{name}.{key}".removeprefix(".")): value  # the same ones in every layer
        for name, module in layer.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and type(value) in PLAIN
    }

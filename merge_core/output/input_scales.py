"""A layer whose input is multiplied by a number: the W of data-flow search (arXiv:2403.13187)."""

from __future__ import annotations

import inspect
from typing import Any


def scaled_input(layer: Any, scale: float) -> Any:
    """Let a layer multiply the hidden state that it is given, ahead of all that it does.

    Args:
        layer: A module whose first argument is the hidden state, ``(rows, tokens, width)``.
        scale: The factor; the product has the hidden state's type.

    Returns:
        The hook's handle: ``remove()`` takes the factor away.
    """
    name = next(iter(inspect.signature(layer.forward).parameters))

    def multiplied(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if args:
            return (args[0] * scale, *args[1:]), named
        return args, {**named, name: named[name] * scale}

    return layer.register_forward_pre_hook(multiplied, with_kwargs=True)

"""What a method's functions give, before it is written: a plugin's mistake is named as that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merge_core.contract import Method
from merge_core.errors import MethodError


def check(method: Method, found: Any, shape: Sequence[int]) -> None:
    """Check that a method gives float32 of a shape.

    Args:
        method: The method, which is named in the error.
        found: What its ``merge`` or ``entry`` gave.
        shape: Of its inputs, or of a block of them.

    Raises:
        MethodError: It is something else.
    """
    import torch

    if not isinstance(found, torch.Tensor):
        got = f"a {type(found).__name__}"
    elif found.dtype != torch.float32 or tuple(found.shape) != tuple(shape):
        got = f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    else:
        return
    raise MethodError(
        f"merge method {method.name!r} must give a float32 tensor of its inputs' shape "
        f"{tuple(shape)}, got {got}; mend the method"
    )

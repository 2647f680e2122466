"""How a method runs: on whole tensors, block by block in the cache, or as one compiled kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Inputs, Method, required
from merge_core.kernels import compiled, eager
from merge_core.kernels.check import check

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def merge(
    method: Method,
    inputs: Inputs,
    out: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    fuse: bool = False,
) -> Tensor:
    """Return one merged tensor, ``(*shape)``: computed in float32, rounded once.

    It is merged where the parents' tensors are. Blocks and kernels give the same bits.

    Args:
        method: Its ``prepare`` and ``entry`` are called, or else ``merge``.
        inputs: Of one tensor; left as they are.
        out: Where to write it, ``(*shape)``; None makes a tensor.
        dtype: Of the tensor that is made; None: float32, or what ``merge`` gives.
        fuse: Use a compiled kernel instead of blocks.

    Raises:
        MethodError: The method gives something else than it should.
    """
    import torch

    if method.prepare is None:
        assert method.merge is not None, f"{method.name} has neither merge nor prepare and entry"
        merged = method.merge(inputs)
        check(method, merged, (inputs.models[0] if inputs.models else required(inputs.base)).shape)
        merged = merged if dtype is None else merged.to(dtype)
        return merged if out is None else out.copy_(merged)
    like = inputs.models[0] if inputs.models else required(inputs.base)
    if out is not None and (out.device != like.device or not out.is_contiguous()):
        return out.copy_(merge(method, inputs, dtype=out.dtype, fuse=fuse))
    if out is None:
        out = torch.empty(like.shape, dtype=dtype or torch.float32, device=like.device)
    if fuse:
        compiled.merge(method, inputs, out)
    else:
        eager.merge_blocks(method, inputs, method.prepare(inputs), out)
    return out

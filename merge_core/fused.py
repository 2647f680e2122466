"""A method's entry function as one fused kernel over a whole tensor, made by ``torch.compile``.

The kernel reads the parents' stored types, computes in registers, rounds once and writes into the
live parameter: no temporary is ever in memory. It gives the bits of ``blocks`` (the compiler is
told not to contract multiplications and additions): no tensor shows which path made it.
Numbers, thresholds and keys are inputs: one kernel serves every recipe of a method.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from merge_core.blocks import Span, merge_blocks, spans
from merge_core.errors import CheckpointError
from merge_core.methods.declaration import Block, Inputs, Method, Prepared

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 20_000_000  # parameters
WORTH = 2**16  # entries from which a kernel call costs less than a few blocks
Layout = tuple[tuple[str, int], ...]  # names and how many values each has
Kernel = Callable[..., Any]
_KERNELS: dict[Any, Kernel] = {}


def available(device: str) -> bool:
    """Return whether kernels can be made here: there is a C++ compiler, or an accelerator."""
    return device != "cpu" or any(map(shutil.which, ("g++", "clang++", "c++")))


def wanted(choice: str, device: str, entries: int) -> bool:
    """Return whether to merge by fused kernels.

    Args:
        choice: ``fused``, ``blocked``, or ``auto``: where they can be made and the model is large
            enough to earn the seconds that compiling takes.
        device: torch's name of it.
        entries: Parameters of a model.

    Raises:
        CheckpointError: ``fused`` is asked for where kernels cannot be made.
    """
    if choice == "fused" and not available(device):
        raise CheckpointError(
            "engine.kernels: fused needs a C++ compiler (g++ or clang++) on the path; install one, "
            "or set it to blocked"
        )
    return choice == "fused" or (choice == "auto" and entries >= LARGE and available(device))


def merge(method: Method, inputs: Inputs, out: Tensor) -> bool:
    """Merge one tensor into ``out``, ``(*shape)`` contiguous, rounding once.

    Returns:
        Whether the result is surely finite; if not it must be looked at.
    """
    assert method.prepare is not None
    prepared = method.prepare(inputs)
    if out.numel() < WORTH:
        return merge_blocks(method, inputs, prepared, out)
    if prepared.rows or prepared.columns:
        return _by_rows(method, inputs, prepared, out)
    models = [model.reshape(-1) for model in inputs.models]
    base = None if inputs.base is None else inputs.base.reshape(-1)
    arrays = {name: [x.reshape(-1) for x in many] for name, many in prepared.arrays.items()}
    flat, sums = out.view(-1), []
    for span in spans(prepared, flat.numel(), flat.numel()):
        part = slice(span.start, span.stop)
        kernel = _kernel(method, prepared, span)
        sums.append(
            kernel(
                flat[part],
                None if base is None else base[part],
                [model[part] for model in models],
                [x[part] for many in arrays.values() for x in many],
                *_scalars(span, flat),
            )
        )
    return all(math.isfinite(x) for x in sums)


def _by_rows(method: Method, inputs: Inputs, prepared: Prepared, out: Tensor) -> bool:
    """Merge a tensor with numbers for each row or column, as a table of rows."""
    table = out.view(-1, out.shape[-1] if out.dim() else 1)
    extra = {**prepared.rows, **prepared.columns}
    span = Span(0, out.numel(), prepared.numbers, {})
    kernel = _kernel(method, replace(prepared, arrays=extra), span, broadcast=True)
    total = kernel(
        table,
        None if inputs.base is None else inputs.base.reshape(table.shape),
        [model.reshape(table.shape) for model in inputs.models],
        [x for many in extra.values() for x in many],
        *_scalars(span, table),
    )
    return math.isfinite(total)


def _scalars(span: Span, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return all numbers as float32, and the span's start and all words as int32."""
    import torch

    numbers = [float(x) for many in span.numbers.values() for x in many]
    low = span.start % 2**32
    words = [low - 2**32 if low >= 2**31 else low, *(x for m in span.words.values() for x in m)]
    return (
        torch.tensor(numbers or [0.0], dtype=torch.float32, device=like.device),
        torch.tensor(words, dtype=torch.int32, device=like.device),
    )


def _kernel(method: Method, prepared: Prepared, span: Span, *, broadcast: bool = False) -> Kernel:
    """Return the kernel of one form of a method.

    Args:
        method: The method.
        prepared: Its flags and arrays count.
        span: Its numbers and words count.
        broadcast: The arrays are numbers of rows or columns.
    """
    layouts = tuple(_layout(named) for named in (span.numbers, span.words, prepared.arrays))
    key = (method.entry, prepared.flags, layouts, broadcast)
    if key not in _KERNELS:
        _KERNELS[key] = _made(method, prepared.flags, *layouts, broadcast=broadcast)
    return _KERNELS[key]


def _layout(named: Mapping[str, Sequence[Any]]) -> Layout:
    return tuple((name, len(many)) for name, many in named.items())


def _made(
    method: Method,
    flags: tuple[Any, ...],
    numbers: Layout,
    words: Layout,
    arrays: Layout,
    *,
    broadcast: bool,
) -> Kernel:
    import torch
    import torch._dynamo

    # one recompilation for each method, number of models and stored type; the limit is per function
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 1024)
    torch._dynamo.config.accumulated_recompile_limit = 4096
    entry = method.entry
    assert entry is not None

    def kernel(
        out: Tensor,
        base: Tensor | None,
        models: list[Tensor],
        extra: list[Tensor],
        floats: Tensor,
        integers: Tensor,
    ) -> Tensor:
        places = None
        if words:
            places = torch.arange(out.shape[0], dtype=torch.int32, device=out.device) + integers[0]
        block = Block(
            [model.float() for model in models],
            None if base is None else base.float(),
            {**_named(floats, numbers, 0), **(_named(extra, arrays, 0) if broadcast else {})},
            flags,
            _named(integers, words, 1),
            {} if broadcast else _named(extra, arrays, 0),
            places,
        )
        rounded = entry(block).to(out.dtype)
        out.copy_(rounded)
        return rounded.float().sum()

    return torch.compile(kernel, dynamic=True, fullgraph=True)


def _named(values: Any, layout: Layout, start: int) -> dict[str, list[Any]]:
    named = {}
    for name, count in layout:
        named[name] = [values[start + i] for i in range(count)]
        start += count
    return named

"""A method's entry function as one fused kernel over a whole tensor.

The kernel reads the parents' stored types, computes in registers, rounds once and writes into the
live parameter: no temporary is ever in memory. It gives the bits of ``eager``: no tensor shows
which path made it. Numbers, thresholds and keys are inputs: one kernel serves every recipe of a
method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from merge_core.contract import Block, Inputs, Method, Tensor
from merge_core.errors import CheckpointError
from merge_core.kernels.check import check
from merge_core.kernels.eager import Span, merge_blocks, spans, table_shape
from merge_core.kernels.torch_compile import Kernel, available, compiled

LARGE = 20_000_000  # parameters
WORTH = 2**9  # entries from which a kernel call costs less than a block
Layout = tuple[tuple[str, int], ...]  # names and how many values each has
_KERNELS: dict[Any, Kernel] = {}


class Tensors(NamedTuple):
    """What a kernel reads and writes: flat tensors, or tables of rows, all of one shape."""

    out: Tensor  # is written
    base: Tensor | None
    models: list[Tensor]
    extra: list[
        Tensor
    ]  # arrays; for tables numbers of rows ``(rows, 1)``, columns ``(1, columns)``

    def part(self, start: int, stop: int) -> Tensors:
        """Return these entries of flat tensors."""
        base = None if self.base is None else self.base[start:stop]
        models, extra = ([x[start:stop] for x in many] for many in (self.models, self.extra))
        return Tensors(self.out[start:stop], base, models, extra)


@dataclass(frozen=True)
class _Form:
    """What is compiled in: what the entry function branches on, and how many values it gets."""

    flags: tuple[Any, ...]
    numbers: Layout
    words: Layout
    arrays: Layout
    by_rows: bool


def _layout(named: Mapping[str, Sequence[Any]]) -> Layout:
    return tuple((name, len(many)) for name, many in named.items())


def wanted(choice: str, device: str, entries: int) -> bool:
    """Return whether to merge a model of so many parameters by fused kernels.

    ``fused`` and ``blocked`` say so; ``auto``: where kernels can be made on the device and the
    model is large enough to earn the seconds that compiling takes.

    Raises:
        CheckpointError: ``fused`` is asked for where kernels cannot be made.
    """
    if choice == "fused" and not available(device):
        raise CheckpointError(
            "engine.kernels: fused needs a C++ compiler (g++ or clang++) on the path; install one, "
            "or set it to blocked"
        )
    return choice == "fused" or (choice == "auto" and entries >= LARGE and available(device))


def merge(method: Method, inputs: Inputs, out: Tensor) -> None:
    """Merge one tensor into ``out``, ``(*shape)`` contiguous, rounding once."""
    assert method.prepare is not None
    prepared = method.prepare(inputs)
    by_rows = bool(prepared.rows or prepared.columns)
    shape = table_shape(prepared, out.shape) if by_rows else (-1,)
    if out.numel() < WORTH or 1 in shape:
        merge_blocks(method, inputs, prepared, out)
        return
    named = {**prepared.rows, **prepared.columns} if by_rows else prepared.arrays
    extra = [x for many in named.values() for x in many]
    tensors = Tensors(
        out.view(shape),
        None if inputs.base is None else inputs.base.reshape(shape),
        [model.reshape(shape) for model in inputs.models],
        extra if by_rows else [x.reshape(shape) for x in extra],
    )
    if by_rows:
        parts = [(Span(0, out.numel(), prepared.numbers, {}), tensors)]
    else:
        whole = spans(prepared, out.numel(), out.numel())
        parts = [(span, tensors.part(span.start, span.stop)) for span in whole]
    for span, part in parts:
        numbers, words = _layout(span.numbers), _layout(span.words)
        form = _Form(prepared.flags, numbers, words, _layout(named), by_rows)
        _kernel(method, form, part)(*part, *_scalars(span, out))


def _scalars(span: Span, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return all numbers as float32, and the span's start and all words as int32."""
    import torch

    numbers = [float(x) for many in span.numbers.values() for x in many]
    words = [span.place, *(x for many in span.words.values() for x in many)]
    return (
        torch.tensor(numbers or [0.0], dtype=torch.float32, device=like.device),
        torch.tensor(words, dtype=torch.int32, device=like.device),
    )


def _kernel(method: Method, form: _Form, tensors: Tensors) -> Kernel:
    """Return the kernel for tensors of these types on their device."""
    base = None if tensors.base is None else tensors.base.dtype
    models = tuple(x.dtype for x in (tensors.out, *tensors.models))
    extra = tuple((x.dtype, form.by_rows and x.shape[0] == 1) for x in tensors.extra)
    key = (method.entry, form, base, models, extra, tensors.out.device)
    if key not in _KERNELS:
        examples = _examples(form, tensors)
        _function(method, form, checked=True)(*examples)
        _KERNELS[key] = compiled(_function(method, form), examples)
    return _KERNELS[key]


def _function(method: Method, form: _Form, *, checked: bool = False) -> Kernel:
    """Return what is compiled; ``checked``: it checks what the method gives."""
    import torch

    entry, words = method.entry, form.words
    assert entry is not None

    def kernel(
        out: Tensor,
        base: Tensor | None,
        models: list[Tensor],
        extra: list[Tensor],
        floats: Tensor,
        integers: Tensor,
    ) -> None:
        places = None
        if words:
            places = torch.arange(out.shape[0], dtype=torch.int32, device=out.device) + integers[0]
        numbers, more = _named(floats, form.numbers, 0), _named(extra, form.arrays, 0)
        block = Block(
            [model.float() for model in models],
            None if base is None else base.float(),
            {**numbers, **more} if form.by_rows else numbers,
            form.flags,
            _named(integers, words, 1),
            {} if form.by_rows else more,
            places,
        )
        merged = entry(block)
        if checked:
            check(method, merged, out.shape)
        out.copy_(merged)

    return kernel


def _examples(form: _Form, tensors: Tensors) -> list[Any]:
    """Return arguments of the kinds that the kernel is for: no two are the same tensor."""
    import torch

    table = (1040, 1008) if form.by_rows else (2**20,)

    def like(x: Tensor) -> Tensor:
        shape = [n if size > 1 else 1 for n, size in zip(table, x.shape, strict=True)]
        return torch.zeros(shape if form.by_rows else table, dtype=x.dtype, device=x.device)

    def numbers(layout: Layout, dtype: torch.dtype) -> Tensor:
        count = 1 + sum(many for _, many in layout)
        return torch.zeros(count, dtype=dtype, device=tensors.out.device)

    return [
        like(tensors.out),
        None if tensors.base is None else like(tensors.base),
        [like(x) for x in tensors.models],
        [like(x) for x in tensors.extra],
        numbers(form.numbers, torch.float32),
        numbers(form.words, torch.int32),
    ]


def _named(values: Any, layout: Layout, start: int) -> dict[str, list[Any]]:
    named = {}
    for name, count in layout:
        named[name] = [values[start + i] for i in range(count)]
        start += count
    return named

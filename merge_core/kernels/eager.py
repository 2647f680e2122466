"""A method's entry function over a tensor, block by block: temporaries never leave the cache.

Blocks of ``BLOCK`` entries cost a few more calls than whole tensors, and save writing every
temporary to memory and reading it back: three to ten times the parents' own bytes.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor
from merge_core.kernels.check import check
from merge_core.kernels.threads import share

BLOCK = 2**17  # entries: 512 KiB of float32
FAR_BLOCK = 2**23  # on an accelerator, where few large operations are better; float32 counts 2**24


@dataclass(frozen=True)
class Span:
    """Entries ``start`` to ``stop`` of a flat tensor, with what holds there."""

    start: int
    stop: int
    numbers: Mapping[str, Sequence[Any]]
    words: Mapping[str, Sequence[int]]

    @property
    def place(self) -> int:
        """Of its first entry, modulo ``2**32``, as a signed 32-bit word."""
        return (self.start + 2**31) % 2**32 - 2**31


def merge_blocks(method: Method, inputs: Inputs, prepared: Prepared, out: Tensor) -> None:
    """Merge one tensor into ``out``, ``(*shape)`` contiguous, rounding once.

    On a CPU threads take block after block, each with one thread of torch's: to share out every
    operation of a block is as many waits for each other, and far more where others compute, too.
    """
    assert method.entry is not None
    if prepared.rows or prepared.columns:
        _merge_rows(method, inputs, prepared, out)
        return
    entry, into = method.entry, out.view(-1)
    which, block = _flat(inputs, prepared)

    def merge(span: Span) -> None:
        import torch

        with torch.no_grad():  # each thread has its own setting
            merged = entry(block(span))
            check(method, merged, (span.stop - span.start,))
            into[span.start : span.stop].copy_(merged)

    if out.device.type == "cpu":
        share(merge, list(which))
    else:
        for span in which:
            merge(span)


def _merge_rows(method: Method, inputs: Inputs, prepared: Prepared, out: Tensor) -> None:
    assert method.entry is not None
    into, start = out.view(table_shape(prepared, out.shape)), 0
    for block in row_blocks(inputs, prepared):
        shape = block.models[0].shape
        stop, merged = start + shape[0], method.entry(block)
        check(method, merged, shape)
        into[start:stop].copy_(merged)
        start = stop


def of_model(inputs: Inputs, prepared: Prepared, i: int, size: int) -> Iterator[Block]:
    """Yield the blocks of one model alone: what is one per model stands at place 0."""

    def own(named: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        return {name: [many[i]] for name, many in named.items()}

    alone = replace(
        prepared,
        numbers=own(prepared.numbers),
        words=own(prepared.words),
        changes=[(place, own(more)) for place, more in prepared.changes],
        arrays=own(prepared.arrays),
    )
    chosen = replace(inputs, models=[inputs.models[i]], values=[inputs.values[i]])
    return flat_blocks(chosen, alone, size)


def flat_blocks(inputs: Inputs, prepared: Prepared, size: int | None = None) -> Iterator[Block]:
    """Yield the blocks of a tensor in flat order."""
    which, block = _flat(inputs, prepared, size)
    return map(block, which)


def _flat(
    inputs: Inputs, prepared: Prepared, size: int | None = None
) -> tuple[Iterator[Span], Callable[[Span], Block]]:
    """Return the spans of a flat tensor, and what makes the block of one of them."""
    import torch

    models = [model.reshape(-1) for model in inputs.models]
    base = None if inputs.base is None else inputs.base.reshape(-1)
    arrays = {name: [x.reshape(-1) for x in many] for name, many in prepared.arrays.items()}
    first = models[0] if base is None else base

    def block(span: Span) -> Block:
        part, count = slice(span.start, span.stop), span.stop - span.start
        places = None
        if prepared.words:
            places = torch.arange(count, dtype=torch.int32, device=first.device).add_(span.place)
        return Block(
            [x[part].float() for x in models],
            None if base is None else base[part].float(),
            _numbers(span.numbers, first),
            prepared.flags,
            span.words,
            {name: [x[part] for x in many] for name, many in arrays.items()},
            places,
        )

    return spans(prepared, first.numel(), size or _size(first)), block


def spans(prepared: Prepared, count: int, size: int = BLOCK) -> Iterator[Span]:
    """Yield the spans of a flat tensor: at most ``size`` entries, with the same numbers in each.

    A span never crosses a multiple of ``2**32``, so that 32 bits count its entries; the upper word
    of their places goes into the keys of random masks.
    """
    places = [place for place, _ in prepared.changes]
    start = 0
    while start < count:
        at = bisect.bisect_right(places, start)
        numbers = dict(prepared.numbers)
        for _, more in prepared.changes[:at]:
            numbers |= more
        words = dict(prepared.words)
        if start >= 2**32:
            words["start"] = [word ^ (start // 2**32) for word in words.get("start", ())]
        limits = [start + size, count, (start // 2**32 + 1) * 2**32, *places[at : at + 1]]
        yield Span(start, min(limits), numbers, words)
        start = min(limits)


def _size(like: Tensor) -> int:
    return BLOCK if like.device.type == "cpu" else FAR_BLOCK


def _numbers(named: Mapping[str, Sequence[Any]], like: Tensor) -> Mapping[str, Sequence[Any]]:
    """Return numbers as an entry function takes them on a device: elsewhere than on a CPU float32.

    CUDA multiplies by the reciprocal of a plain number instead of dividing by it. Those that are
    tensors already stay the same ones.
    """
    import torch

    if like.device.type == "cpu":
        return named

    def there(many: Sequence[Any]) -> Sequence[Any]:
        if any(isinstance(x, torch.Tensor) for x in many):
            return [torch.as_tensor(x, dtype=torch.float32, device=like.device) for x in many]
        return torch.tensor(list(many), dtype=torch.float32, device=like.device).unbind()

    return {name: there(many) for name, many in named.items()}


def table_shape(prepared: Prepared, shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of a tensor that has numbers for each of them.

    A row is what the last axis holds, a column what the first one holds: of three and more
    dimensions the others belong to the columns where columns have numbers, else to the rows.
    """
    if not shape:
        return 1, 1
    height = shape[0] if prepared.columns and len(shape) > 1 else math.prod(shape[:-1])
    return height, math.prod(shape) // max(1, height)


def row_blocks(inputs: Inputs, prepared: Prepared) -> Iterator[Block]:
    """Yield a tensor's rows in blocks of ``(rows, width)``, see :func:`table_shape`.

    Numbers of rows and columns broadcast over a block.
    """
    first = inputs.models[0]
    height, width = table_shape(prepared, first.shape)
    models = [model.reshape(height, width) for model in inputs.models]
    base = None if inputs.base is None else inputs.base.reshape(height, width)
    step = max(1, _size(first) // max(1, width))
    plain = _numbers(prepared.numbers, first)
    for start in range(0, height, step):
        part = slice(start, start + step)
        numbers: dict[str, Sequence[Any]] = {**plain, **prepared.columns}
        numbers |= {name: [x[part] for x in many] for name, many in prepared.rows.items()}
        yield Block(
            [x[part].float() for x in models],
            None if base is None else base[part].float(),
            numbers,
            prepared.flags,
            prepared.words,
            {},
            None,
        )

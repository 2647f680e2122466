"""Parameters of a live model's modules, and which blocks of them its class stores under what name.

Fused experts are one parameter ``(experts, rows, columns)`` in memory and many tensors in files.
transformers' own conversion on saving is asked where the entries of a small numbered stand-in go,
so no table of classes is needed, and no weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from merge_core.architecture import model_class
from merge_core.architecture.stored_names import fix_conversions, stored_form
from merge_core.contract import Tensor

SIDE = 64  # most rows and columns of a stand-in; what is cut in equal parts is cut so there, too


@dataclass(frozen=True)
class Block:
    """What a stored tensor holds of a live parameter; ranges are half open."""

    experts: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    stacked: bool  # it has an axis for experts; else it is of one
    turned: bool  # it has columns before rows


@dataclass(frozen=True)
class LiveParameter:
    """One parameter of a live model."""

    name: str
    shape: tuple[int, int, int]  # experts (1 for a matrix), rows, columns
    outputs_last: bool  # columns, not rows, are what its layer puts out
    blocks: Mapping[str, Block]  # by stored name; empty where it is not stored in blocks


def live_parameters(
    config: Mapping[str, Any], modules: tuple[str, ...], where: str, tensors: int
) -> Mapping[str, tuple[LiveParameter, ...]]:
    """Return module -> its own matrices and stacks of matrices, in their order.

    Args:
        config: Contents of a ``config.json``.
        modules: Names of modules of its class; those that it has not are left out.
        where: What holds the config, for messages.
        tensors: How many the folder has: a class with many times more is not made.

    Raises:
        CheckpointError: transformers makes no model of the config.
    """
    return _found(json.dumps(config, sort_keys=True), modules, where, tensors)


@lru_cache(maxsize=8)
def _found(
    config: str, modules: tuple[str, ...], where: str, tensors: int
) -> Mapping[str, tuple[LiveParameter, ...]]:
    def of(model: Any) -> dict[str, tuple[LiveParameter, ...]]:
        fix_conversions(model)
        known = dict(model.named_modules())
        return {
            name: tuple(
                _parameter(model, known[name], f"{name}.{own}", tuple(x.shape))
                for own, x in known[name].named_parameters(recurse=False)
                if x.dim() in (2, 3)
            )
            for name in modules
            if name in known
        }

    return model_class.ask(json.loads(config), of, where, tensors)


def _parameter(model: Any, module: Any, name: str, shape: tuple[int, ...]) -> LiveParameter:
    import torch

    whole = (1, *shape) if len(shape) == 2 else shape
    small = (whole[0], *(n if n <= SIDE else math.gcd(n, SIDE) for n in whole[1:]))
    numbers = torch.arange(math.prod(small)).reshape(small if len(shape) == 3 else small[1:])
    found = {part: _block(x, small) for part, x in stored_form(model, name, numbers)}
    blocks = {part: _scaled(x, small, whole) for part, x in found.items() if x is not None}
    complete = len(blocks) == len(found)
    last = len(shape) == 3 and bool(getattr(module, "is_transposed", False))
    return LiveParameter(name, (whole[0], whole[1], whole[2]), last, blocks if complete else {})


def _block(places: Tensor, shape: tuple[int, ...]) -> Block | None:
    """Return the block of ``shape`` whose entries' flat places these are, or None."""
    import torch

    if places.dim() not in (2, 3):
        return None
    axes = torch.unravel_index(places, shape)
    ranges = [(int(x.min()), int(x.max()) + 1) for x in axes]
    numbers = torch.arange(math.prod(shape)).reshape(shape)
    for axis, (start, stop) in enumerate(ranges):
        numbers = numbers.narrow(axis, start, stop - start)
    if places.dim() == 2:
        numbers = numbers.flatten(0, 1)
    for turned in (False, True):
        if places.equal(numbers.mT if turned else numbers):
            return Block(ranges[0], ranges[1], ranges[2], places.dim() == 3, turned)
    return None


def _scaled(block: Block, small: tuple[int, ...], whole: tuple[int, ...]) -> Block:
    (rows, columns) = (
        (start * n // m, stop * n // m)
        for (start, stop), m, n in zip(
            (block.rows, block.columns), small[1:], whole[1:], strict=True
        )
    )
    return Block(block.experts, rows, columns, block.stacked, block.turned)

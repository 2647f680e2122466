"""Layer numbers come from the tensors' own names; no table per architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from merge_core.errors import CheckpointError

_NUMBERED = re.compile(r"^(?P<stack>.*?)\.?(?<![^.])(?P<index>\d+)(?=\.)")


@dataclass(frozen=True)
class Layers:
    """The layer stack of a model."""

    stack: str | None  # what stands before the number, as ``model.layers``; None without layers
    count: int  # number of layers

    def index(self, tensor: str) -> int | None:
        """Return the layer that a tensor belongs to, from 0, or None outside the layers."""
        found = _NUMBERED.match(tensor)
        return int(found["index"]) if found and found["stack"] == self.stack else None

    def start(self, index: int) -> str:
        """Return what the names of a layer's tensors begin with: ``model.layers.3.``."""
        return f"{self.stack}.{index}." if self.stack else f"{index}."


@dataclass(frozen=True)
class Module:
    """A part of a model that is sliced by itself: most models are one, ``default``."""

    name: str  # as recipes write it under ``modules:``
    layers: Layers
    before: tuple[str, ...]  # names of the tensors ahead of the layers, in the order of the model
    after: tuple[str, ...]  # those behind the layers


def of(names: Iterable[str]) -> Layers:
    """Find the one layer stack in a model's tensor names.

    Raises:
        CheckpointError: There are several stacks (encoder and decoder), or numbers are missing.
    """
    found = stacks(names)
    if len(found) > 1:
        raise CheckpointError(
            f"the model has several layer stacks ({', '.join(str(x.stack) for x in found)}), "
            f"where one is expected"
        )
    return found[0] if found else Layers(None, 0)


def stacks(names: Iterable[str]) -> list[Layers]:
    """Find all layer stacks in a model's tensor names, sorted by name.

    Raises:
        CheckpointError: Layer numbers are missing.
    """
    numbers: dict[str, set[int]] = {}
    for name in names:
        if found := _NUMBERED.match(name):
            numbers.setdefault(found["stack"], set()).add(int(found["index"]))
    for stack, present in numbers.items():
        if present != set(range(len(present))):
            missing = sorted(set(range(max(present))) - present)
            raise CheckpointError(f"layers of {stack} are missing in the checkpoint: {missing}")
    return [Layers(stack, len(numbers[stack])) for stack in sorted(numbers)]


def modules_of(names: Sequence[str]) -> tuple[Module, ...]:
    """Divide a model's tensors into modules: one with one stack, else one for each part.

    A part is named by the first word in which the stacks' names differ: ``encoder.block`` and
    ``decoder.block`` give ``encoder`` and ``decoder``. What stands beside them under another word,
    such as a projector, is a module without layers.

    ``names`` are in the order of the model, since that tells what stands ahead of the layers.
    """
    found = stacks(names)
    if len(found) <= 1:
        return (_module("default", found[0] if found else Layers(None, 0), names),)
    split = [str(layers.stack).split(".") for layers in found]
    columns = enumerate(zip(*split, strict=False))
    depth = next((i for i, words in columns if len(set(words)) > 1), None)
    if depth is None:
        raise CheckpointError(
            f"one layer stack stands inside another: {', '.join(str(x.stack) for x in found)}"
        )
    own = {words[depth]: layers for words, layers in zip(split, found, strict=True)}
    shared = split[0][:depth]
    parts: dict[str, list[str]] = {}
    for name in names:
        words = name.split(".")
        inside = words[:depth] == shared and len(words) > depth
        parts.setdefault(words[depth if inside else 0], []).append(name)
    none = Layers(None, 0)
    return tuple(_module(part, own.get(part, none), names) for part, names in parts.items())


def _module(name: str, layers: Layers, names: Sequence[str]) -> Module:
    inside = [layers.index(tensor) is not None for tensor in names]
    first = inside.index(True) if True in inside else len(names)
    after = tuple(tensor for tensor in names[first:] if layers.index(tensor) is None)
    return Module(name, layers, tuple(names[:first]), after)

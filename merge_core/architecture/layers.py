"""Stacks of layers in the names of tensors; no table per architecture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from merge_core.errors import CheckpointError


@dataclass(frozen=True)
class Layers:
    """The layer stack of a model."""

    stack: str | None  # what stands before the number, as ``model.layers``; None without layers
    count: int  # number of layers

    def index(self, tensor: str) -> int | None:
        """Return the layer that a tensor belongs to, from 0, or None outside the layers."""
        start = f"{self.stack}." if self.stack else ""
        if self.stack is None or not tensor.startswith(start):
            return None
        number, dot, _ = tensor[len(start) :].partition(".")
        return int(number) if dot and _is_number(number) else None

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


def numbered(name: str) -> Iterator[tuple[str, int]]:
    """Yield what stands before each number in a tensor's name, and the number."""
    words = name.split(".")
    for i, word in enumerate(words[:-1]):
        if _is_number(word):
            yield ".".join(words[:i]), int(word)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def of(names: Iterable[str]) -> Layers:
    """Find the one layer stack in a model's tensor names.

    Raises:
        CheckpointError: There are several stacks (encoder and decoder).
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

    This is for who cannot ask the model class (``Architecture.stacks``): a stack are the numbers
    from 0 to n - 1, the first ones in the names, whose members have a tensor in common.
    """
    members: dict[str, dict[int, set[str]]] = {}
    for name in names:
        for stack, index in numbered(name):
            tail = name.removeprefix(Layers(stack, 0).start(index))
            members.setdefault(stack, {}).setdefault(index, set()).add(tail)
            break
    return [
        Layers(stack, len(found))
        for stack, found in sorted(members.items())
        if found.keys() == set(range(len(found))) and set.intersection(*found.values())
    ]


def modules_of(names: Sequence[str], found: Sequence[Layers]) -> tuple[Module, ...]:
    """Divide a model's tensors into modules: one with one stack, else one for each part.

    A part is named by the first word in which the stacks' names differ: ``encoder.block`` and
    ``decoder.block`` give ``encoder`` and ``decoder``; of several stacks in one part the one with
    most tensors is sliced. What stands beside them under another word, such as a projector, is a
    module without layers.

    Args:
        names: In the order of the model, since that tells what stands ahead of the layers.
        found: The model's stacks.
    """
    if len(found) <= 1:
        return (_module("default", found[0] if found else Layers(None, 0), names),)
    split = [str(layers.stack).split(".") for layers in found]
    columns = enumerate(zip(*split, strict=False))
    depth = next((i for i, words in columns if len(set(words)) > 1), None)
    if depth is None:
        raise CheckpointError(
            f"one layer stack stands inside another: {', '.join(str(x.stack) for x in found)}"
        )
    sizes = {layers: sum(layers.index(name) is not None for name in names) for layers in found}
    own: dict[str, Layers] = {}
    for words, layers in zip(split, found, strict=True):
        own[words[depth]] = max(own.get(words[depth], layers), layers, key=sizes.__getitem__)
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

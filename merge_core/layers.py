"""Layer numbers come from the tensors' own names; no table per architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from merge_core.errors import CheckpointError

_NUMBERED = re.compile(r"^(?P<stack>.*?)\.?(?<![^.])(?P<index>\d+)(?=\.)")


@dataclass(frozen=True)
class Layers:
    """The layer stack of a model.

    Args:
        stack: What stands before the layer number, such as ``model.layers``; None without layers.
        count: Number of layers.
    """

    stack: str | None
    count: int

    def index(self, tensor: str) -> int | None:
        """Return the layer that a tensor belongs to, from 0, or None outside the layers."""
        found = _NUMBERED.match(tensor)
        if found is None or found["stack"] != self.stack:
            return None
        return int(found["index"])

    def place(self, tensor: str) -> float:
        """Return the tensor's place in [0, 1] for gradients, by the rule of the mergekit dialect.

        First layer 0, last layer 1, the layer of a one-layer model 1, and 0 for all tensors outside
        the layers: embeddings, final norm and head take a gradient's first value.
        """
        index = self.index(tensor)
        if index is None:
            return 0.0
        return index / (self.count - 1) if self.count > 1 else 1.0


def of(names: Iterable[str]) -> Layers:
    """Find the layer stack in a model's tensor names.

    Raises:
        CheckpointError: There are several stacks (encoder and decoder), or numbers are missing.
    """
    stacks: dict[str, set[int]] = {}
    for name in names:
        found = _NUMBERED.match(name)
        if found is not None:
            stacks.setdefault(found["stack"], set()).add(int(found["index"]))
    if not stacks:
        return Layers(None, 0)
    if len(stacks) > 1:
        raise CheckpointError(
            f"the model has several layer stacks ({', '.join(sorted(stacks))}); "
            f"only models with one are read yet"
        )
    ((stack, numbers),) = stacks.items()
    if numbers != set(range(len(numbers))):
        missing = sorted(set(range(max(numbers))) - numbers)
        raise CheckpointError(f"layers of {stack} are missing in the checkpoint: {missing}")
    return Layers(stack, len(numbers))

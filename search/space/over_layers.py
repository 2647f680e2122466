"""Where the values of a spread knob stand in a recipe: lists over the layers, and names.

Values over the layers become a list with one for each layer, which the dialect's interpolation
reproduces exactly. For tensors outside the layers the dialect takes a list's first value; here each
is stated by its name: the embeddings have the first layer's value, what stands behind the layers
(final norm, head) the last one's. With ``per: tensor`` each has its own.

A filter of the dialect is a part of a name, and the first that matches holds. So longer names stand
first, and where a stated name is a part of another tensor's name, that one is stated too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from merge_core.architecture import layers
from search.spec.ranges import Knob

Filter = str | None


@dataclass(frozen=True)
class Case:
    """An entry that a recipe gets: a filter, and the position of its value, or of each layer's."""

    filter: Filter
    at: int | tuple[int, ...]

    def filled(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return it with the values that stand at the positions."""
        found = values[self.at] if isinstance(self.at, int) else [values[i] for i in self.at]
        return {"value": found} if self.filter is None else {"filter": self.filter, "value": found}


class OverLayers:
    """The layers of a study's models, and what stands around them.

    Args:
        tensors: Names of all tensors of the models, or of a part of them.
        stack: Of the part's layers; None: that of the names, if they have one.
        first: Number of the part's first layer in the names.
    """

    def __init__(
        self, tensors: Iterable[str], stack: layers.Layers | None = None, first: int = 0
    ) -> None:
        self._names = tuple(sorted(tensors))
        self._stack, self._first = stack, first

    @cached_property
    def _layers(self) -> layers.Layers:
        if self._stack is not None:
            return self._stack
        found = layers.stacks(self._names)
        return found[0] if len(found) == 1 else layers.Layers(None, 0)

    @cached_property
    def count(self) -> int:
        """Number of layers.

        Raises:
            CheckpointError: There are several stacks of them.
        """
        return (self._stack or layers.of(self._names)).count

    def rule_broken_by(self, knob: Knob) -> str | None:
        """Return why a knob cannot be spread over these layers, or None."""
        if knob.per == "tensor":
            return None
        if self.count == 0:
            return f"{knob.unit} needs a model with layers"
        if isinstance(knob.per, tuple) and knob.per[-1][1] != self.count - 1:
            last = knob.per[-1][1]
            what = "has no such layer" if last >= self.count else "they must reach the last one"
            return f"the bands end at layer {last}, the model's layers at {self.count - 1}; {what}"
        if knob.cosine is not None and knob.cosine > self.count:
            return f"cosine: {knob.cosine} needs as many layers, the model has {self.count}"
        return None

    def hits(self, wanted: Filter, earlier: Sequence[Filter]) -> list[str]:
        """Return the tensors that a filter decides after earlier ones, in the model's order."""
        found = [
            name
            for name in self._names
            if matches(wanted, name) and not any(matches(other, name) for other in earlier)
        ]
        return sorted(found, key=self._depth)

    def cases(self, knob: Knob, wanted: Filter, earlier: Sequence[Filter]) -> list[Case]:
        """Return what stands in the recipe in place of a spread knob's own entry.

        Args:
            knob: Can be spread over these layers.
            wanted: The filter of its entry.
            earlier: The filters of the entries before it.
        """
        hits = self.hits(wanted, earlier)
        if knob.per == "tensor":
            rest = [x for x in self._names if not any(matches(e, x) for e in (*earlier, wanted))]
            kinds = self._kinds(hits)
            return kinds if self._hold(kinds, hits, rest) else _by_length(hits, range(len(hits)))
        outside = [name for name in hits if self._index(name) is None]
        named = [name for name in hits if any(other in name for other in outside)]
        over_all = Case(wanted, tuple(range(self.count)))
        return [*_by_length(named, map(self.layer_of, named)), over_all]

    def _index(self, tensor: str) -> int | None:
        """Return the number of a tensor's layer in the part, or None outside the layers."""
        index = self._layers.index(tensor)
        return None if index is None else index - self._first

    def depth(self, tensor: str) -> float:
        """Return a tensor's place in [0, 1], as the dialect's interpolation takes it."""
        index = self._index(tensor)
        if index is None:
            return 0.0
        return index / (self.count - 1) if self.count > 1 else 1.0

    def layer_of(self, tensor: str) -> int:
        """Return the layer whose value a tensor has."""
        index = self._index(tensor)
        if index is None:
            return 0 if _is_embedding(tensor) else self.count - 1
        return index

    def _depth(self, tensor: str) -> tuple[int, int, str]:
        index = self._index(tensor)
        if index is None:
            return (0 if _is_embedding(tensor) else 2), 0, tensor
        return 1, index, tensor

    def _kinds(self, hits: Sequence[str]) -> list[Case]:
        """Return one case for all layers' tensors of one kind, such as ``mlp.up_proj.weight``."""
        outside, kinds = {}, dict[str, dict[int, int]]()
        for position, name in enumerate(hits):
            index = self._index(name)
            if index is None:
                outside[name] = position
            else:
                kind = name.removeprefix(self._layers.start(index + self._first))
                kinds.setdefault(kind, {})[index] = position
        cases = [Case(name, position) for name, position in outside.items()]
        for kind, at in kinds.items():  # a layer without one gets a value that nothing reads
            cases.append(
                Case(kind, tuple(at.get(i, min(at.values())) for i in range(self._layers.count)))
            )
        return sorted(cases, key=lambda case: -len(str(case.filter)))

    def _hold(self, cases: Sequence[Case], hits: Sequence[str], rest: Sequence[str]) -> bool:
        """Return whether cases give each hit its own position, and the rest nothing."""
        return [self._position(cases, name) for name in hits] == [*range(len(hits))] and all(
            self._position(cases, name) is None for name in rest
        )

    def _position(self, cases: Sequence[Case], tensor: str) -> int | None:
        first = next((case.at for case in cases if matches(case.filter, tensor)), None)
        return first[self._index(tensor) or 0] if isinstance(first, tuple) else first


def _by_length(names: Iterable[str], positions: Iterable[int]) -> list[Case]:
    found = [Case(name, position) for name, position in zip(names, positions, strict=True)]
    return sorted(found, key=lambda case: -len(str(case.filter)))


def matches(wanted: Filter, tensor: str) -> bool:
    """Return whether a filter of the dialect takes in a tensor."""
    return wanted in (None, "*") or str(wanted) in tensor


def _is_embedding(tensor: str) -> bool:
    """Return whether a tensor outside the layers stands before them (input embeddings)."""
    parts = tensor.split(".")
    return ("emb" in tensor and "out" not in tensor) or "wte" in parts or "wpe" in parts

"""A transformers model whose weights are put in and taken out one by one.

A weight's memory is the model's own, to be written in place, or it is shared: with a parent, whose
tensor it is, and with other layers that are the same. Shared memory is never written to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from merge_core.architecture.skeleton import loaded_type
from merge_core.contract import Tensor
from merge_core.output.live_views import Place, stored_places


class Spare:
    """Memory that one model has left, for the next one: fresh pages cost more than a merge."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[Any, Any], list[Tensor]] = defaultdict(list)

    def add(self, tensor: Tensor) -> None:
        """Keep memory that nobody uses any more."""
        if tensor.is_contiguous():
            self._tensors[tensor.shape, tensor.dtype].append(tensor)

    def like(self, meta: Tensor, dtype: Any, device: str) -> Tensor:
        """Return memory of the shape of a tensor without any; what it holds does not matter."""
        import torch

        there = self._tensors.get((meta.shape, dtype))
        if there and meta.is_contiguous():
            return there.pop()
        return torch.empty_like(meta, dtype=dtype, device=device)


class Slots:
    """The places for weights in one model.

    Args:
        model: Without weights, see ``skeleton``.
        tensors: Names of the stored tensors that it is to be filled from. Where they name both of
            two that the class ties, these are untied, whatever its config says.
        dtype: torch's type of the model.
        device: Where it is to run.

    Raises:
        CheckpointError: transformers stores a weight only together with others.
    """

    def __init__(self, model: Any, tensors: Collection[str], dtype: Any, device: str) -> None:
        self.model, self._device = model, device
        found = dict(stored_places(model))
        _untie(model, found, tensors)
        ties: dict[str, str] = dict(model.all_tied_weights_keys)
        self.places = {
            name: replace(place, live=ties.get(place.live, place.live))
            for name, place in found.items()
        }
        self.types = loaded_type(model, dtype)
        self._meta = dict(model.state_dict(keep_vars=True))
        self._ends: dict[str, list[tuple[dict[str, Any], str]]] = defaultdict(list)
        for name in map(str, self._meta):
            module, _, last = name.rpartition(".")
            owner = model.get_submodule(module)
            there = owner._parameters if last in owner._parameters else owner._buffers
            self._ends[ties.get(name, name)].append((there, last))
        self._own: dict[str, Tensor] = {}
        self._shared: dict[str, Tensor] = {}

    def is_parameter(self, live: str) -> bool:
        """Return whether a live tensor is a parameter; buffers may be written to by the model."""
        import torch

        return isinstance(self._meta[live], torch.nn.Parameter)

    def own(self, live: str, spare: Spare) -> Tensor:
        """Return the memory of a live tensor, which is the model's own from now on."""
        if live not in self._own:
            self._shared.pop(live, None)
            memory = spare.like(self._meta[live], self.types[live], self._device)
            self._own[live] = memory
            self._put(live, memory, self._meta[live].requires_grad)
        return self._own[live]

    def share(self, live: str, tensor: Tensor) -> None:
        """Let a live tensor be another one, which is not written to."""
        self._own.pop(live, None)
        if self._shared.get(live) is not tensor:
            self._shared[live] = tensor
            self._put(live, tensor, False)

    def learning(self, place: Place) -> Any:
        """Return the parameter at a place, as it is, in memory that may be written to."""
        assert place.view is None, f"{place.live} is stored in parts"
        shared = self._shared.get(place.live)
        if shared is not None:
            self.own(place.live, Spare()).copy_(shared)
        there, last = self._ends[place.live][0]
        return there[last]

    def clear(self) -> Spare:
        """Take all weights out; return the memory that was the model's own."""
        spare = Spare()
        for memory in self._own.values():
            spare.add(memory)
        self._own.clear()
        self._shared.clear()
        for live, ends in self._ends.items():
            for there, last in ends:
                there[last] = self._meta[live]
        return spare

    def _put(self, live: str, tensor: Tensor, learning: bool) -> None:
        """Put a tensor into all places of a live one, tied ones too."""
        import torch

        value = tensor
        if self.is_parameter(live):
            value = torch.nn.Parameter(tensor, requires_grad=learning)
        for there, last in self._ends[live]:
            there[last] = value


def _untie(model: Any, places: dict[str, Place], tensors: Collection[str]) -> None:
    """Untie what there are two tensors for, though the class ties it whatever its config says."""
    stored = {place.live: name for name, place in places.items() if place.view is None}
    for one, other in dict(model.all_tied_weights_keys).items():
        if {stored.get(one), stored.get(other)} <= {*tensors}:
            del model.all_tied_weights_keys[one]

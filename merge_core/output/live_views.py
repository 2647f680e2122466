"""Which part of a live model's weights every stored tensor fills."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from merge_core.architecture.stored_names import stored_form
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.plan.steps import Plan

View = tuple[tuple[int, ...], int]  # strides, and the first entry's place in the live tensor


@dataclass(frozen=True)
class Place:
    """What a stored tensor fills."""

    live: str  # name of the live tensor
    shape: tuple[int, ...]  # of the stored one
    view: View | None  # None: all of the live tensor, as it is

    def of(self, live: Tensor) -> Tensor:
        """Return the part of a live tensor, or of what has its strides."""
        if self.view is None:
            return live
        strides, start = self.view
        return live.as_strided(self.shape, strides, live.storage_offset() + start)


def stored_places(model: Any) -> Iterator[tuple[str, Place]]:
    """Yield stored tensor names, each with its place; the model may be without weights.

    transformers stores some classes under other names than their modules have, and fused weights
    one by one; its own reverse conversion tells which. It makes parts contiguous, which is left
    out here. Where it still copies, the places of the copy's entries are read off by converting
    numbers instead of weights. So a fused weight is gone through once, however many parts it has.
    """
    for name, live in model.state_dict(keep_vars=True).items():
        live = live.detach()
        memory = live.untyped_storage()._cdata
        with _without_copies():
            stored = stored_form(model, name, live)
        if all(x.untyped_storage()._cdata == memory for _, x in stored):
            for part, x in stored:
                start = x.storage_offset() - live.storage_offset()
                whole = x.shape == live.shape and x.stride() == live.stride()
                yield part, Place(name, tuple(x.shape), None if whole else (x.stride(), start))
            continue
        numbers = _numbered(live)
        for part, places in stored_form(model, name, numbers):
            view = _view(live, numbers, places)
            if view is not None:
                yield part, Place(name, tuple(places.shape), view)


def _without_copies() -> AbstractContextManager[Any]:
    """Leave tensors where they are when they are asked to be contiguous."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:  # torch's own signature
            return args[0] if func is torch.Tensor.contiguous else func(*args, **(kwargs or {}))

    return Mode()


def _numbered(live: Tensor) -> Tensor:
    import torch

    return torch.arange(live.numel()).reshape(live.shape)


def _view(live: Tensor, numbers: Tensor, places: Tensor) -> View | None:
    """Return the view of ``live`` whose entries stand at ``places``, or None if there is none.

    ``numbers`` are the flat indices of ``live``, ``places`` those of the view's entries.
    """
    if not places.numel():
        return tuple(1 for _ in places.shape), 0
    flat = places.flatten()
    start = int(flat[0])
    steps = [math.prod(places.shape[i + 1 :]) for i in range(places.dim())]  # to the next in axis i
    strides = tuple(
        int(flat[step]) - start if n > 1 else 0 for n, step in zip(places.shape, steps, strict=True)
    )
    last = start + sum((n - 1) * step for n, step in zip(places.shape, strides, strict=True))
    if min(strides, default=0) < 0 or last >= live.numel() or not live.is_contiguous():
        return None
    expected = numbers.as_strided(places.shape, strides, start)
    return (strides, start) if expected.equal(places) else None


def check_filled(plan: Plan, places: Mapping[str, Place]) -> None:
    """Check that a plan fills all weights of a live model.

    Raises:
        CheckpointError: Weights are not filled by the plan, or by two of its tensors.
    """
    filled: dict[Place, str] = {}
    for step in plan.steps:
        place = places.get(step.tensor)
        if place is None or place.shape != step.shape:
            had = "has no such weights" if place is None else f"has {place.shape}"
            raise CheckpointError(
                f"{step.tensor}: the model class of {plan.config_from} {had}, the parents have "
                f"{step.shape}; they cannot be overwritten in place"
            )
        if step.entries and filled.setdefault(place, step.tensor) != step.tensor:
            raise CheckpointError(f"{step.tensor} and {filled[place]} share the same live weights")
    unfilled = [x for x, place in places.items() if math.prod(place.shape) and place not in filled]
    if unfilled:
        raise CheckpointError(
            f"{unfilled[0]}: a weight of the model that no parent stores "
            f"({len(unfilled)} such); the checkpoint does not fit its config"
        )

"""Which part of a live model's weights every stored tensor fills."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from merge_core.architecture.stored_names import stored_form
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.plan.steps import Plan


def stored_views(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield stored tensor names, each with the view of the live weights that it fills.

    transformers stores some classes under other names than their modules have, and fused weights
    one by one; its own reverse conversion tells which. It makes parts contiguous, which is left
    out here. Where it still copies, the places of the copy's entries are read off by converting
    numbers instead of weights. So a fused weight is gone through once, however many parts it has.
    """
    for name, live in model.state_dict().items():
        memory = live.untyped_storage().data_ptr()
        with _without_copies():
            stored = stored_form(model, name, live)
        if all(x.untyped_storage().data_ptr() == memory for _, x in stored):
            yield from stored
            continue
        numbers = _numbered(live)
        for part, places in stored_form(model, name, numbers):
            view = _view(live, numbers, places)
            if view is not None:
                yield part, view


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

    return torch.arange(live.numel(), device=live.device).reshape(live.shape)


def _view(live: Tensor, numbers: Tensor, places: Tensor) -> Tensor | None:
    """Return the view of ``live`` whose entries stand at ``places``, or None if there is none.

    ``numbers`` are the flat indices of ``live``, ``places`` those of the view's entries.
    """
    if not places.numel():
        return live.new_empty(places.shape)
    flat = places.flatten()
    start = int(flat[0])
    steps = [math.prod(places.shape[i + 1 :]) for i in range(places.dim())]  # to the next in axis i
    strides = [
        int(flat[step]) - start if n > 1 else 0 for n, step in zip(places.shape, steps, strict=True)
    ]
    last = start + sum((n - 1) * step for n, step in zip(places.shape, strides, strict=True))
    if min(strides, default=0) < 0 or last >= live.numel() or not live.is_contiguous():
        return None
    expected = numbers.as_strided(places.shape, strides, start)
    if not expected.equal(places):
        return None
    return live.as_strided(places.shape, strides, live.storage_offset() + start)


def check_filled(plan: Plan, places: Mapping[str, Tensor]) -> None:
    """Check that a plan fills all weights of a live model; ``places`` are their views by name.

    Raises:
        CheckpointError: Weights are not filled by the plan, or by two of its tensors.
    """
    filled: dict[tuple[int, int], str] = {}
    for step in plan.steps:
        place = places.get(step.tensor)
        if place is None or place.shape != step.shape:
            had = "has no such weights" if place is None else f"has {tuple(place.shape)}"
            raise CheckpointError(
                f"{step.tensor}: the model class of {plan.config_from} {had}, the parents have "
                f"{step.shape}; they cannot be overwritten in place"
            )
        where = (place.data_ptr(), place.numel())
        if place.numel() and filled.setdefault(where, step.tensor) != step.tensor:
            raise CheckpointError(f"{step.tensor} and {filled[where]} share the same live weights")
    there = ((name, (place.data_ptr(), place.numel())) for name, place in places.items())
    unfilled = [name for name, where in there if where[1] and where not in filled]
    if unfilled:
        raise CheckpointError(
            f"{unfilled[0]}: a weight of the model that no parent stores "
            f"({len(unfilled)} such); the checkpoint does not fit its config"
        )

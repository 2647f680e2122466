"""How a loss changes with a method's parameters, from how it changes with the merged tensor.

By the chain rule, in two steps. What becomes of an entry depends on the numbers that ``prepare``
gives: that step is differentiated by torch, block by block, as the tensor is merged. How these few
numbers depend on the parameters is asked of ``prepare`` itself, a little to either side; it reads
no tensor for that where a study remembers thresholds and sums. Masks, cuts and elected signs are
what they are at the parameters' values: they are held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from merge_core.contract import Inputs, Method, Prepared, Tensor
from merge_core.errors import ParameterError
from merge_core.kernels import eager

SIDE = 1e-4  # how far to either side; float64 leaves 1e-8 of a derivative, and so does the cube
Place = tuple[str, str, int]  # kind, name and position of a number in ``Prepared``


@dataclass(frozen=True)
class Gradients:
    """``dL / d parameter`` for one tensor, of the parameters that a method declares as smooth."""

    values: Sequence[Mapping[str, float]]  # of scope ``model``: one mapping per model
    shared: Mapping[str, float]  # of scope ``shared``

    def __add__(self, other: Gradients) -> Gradients:
        """Return the gradients of the sum of two losses."""
        pairs = zip(self.values, other.values, strict=True)
        return Gradients(
            [{name: x + b[name] for name, x in a.items()} for a, b in pairs],
            {name: x + other.shared[name] for name, x in self.shared.items()},
        )


def of_parameters(method: Method, inputs: Inputs, gradient: Tensor) -> Gradients:
    """Return how a loss changes with the smooth parameters of one tensor.

    Args:
        method: Has ``prepare`` and ``entry``.
        inputs: Of the tensor; left as they are.
        gradient: ``(*shape)``, ``dL / dW`` of the merged tensor, on its device.

    Raises:
        ParameterError: The method has no smooth parameters.
    """
    smooth = [param for param in method.params if param.smooth]
    if not smooth or method.prepare is None:
        raise ParameterError(f"no parameter of {method.name!r} has a derivative")
    asked = [
        (param.name, i)
        for param in smooth
        for i in (range(len(inputs.models)) if param.scope == "model" else [None])
    ]
    slopes = {one: _slopes(method, inputs, *one) for one in asked}
    moved = {place for found in slopes.values() for place in found}
    by_number = _of_numbers(method, inputs, sorted(moved), gradient)

    def of(name: str, i: int | None) -> float:
        return sum(
            float((by_number[place] * slope).sum()) for place, slope in slopes[name, i].items()
        )

    own = [param.name for param in smooth if param.scope == "model"]
    return Gradients(
        [{name: of(name, i) for name in own} for i in range(len(inputs.models))],
        {param.name: of(param.name, None) for param in smooth if param.scope == "shared"},
    )


def _slopes(method: Method, inputs: Inputs, name: str, i: int | None) -> dict[Place, Tensor]:
    """Return the derivative of each prepared number by one parameter, float64, where it has one."""
    assert method.prepare is not None
    ends = [_numbers_of(method.prepare(_moved(inputs, name, i, side))) for side in (-SIDE, SIDE)]
    moves = [place for place, value in ends[0].items() if not value.equal(ends[1][place])]
    return {place: (ends[1][place] - ends[0][place]) / (2 * SIDE) for place in moves}


def _moved(inputs: Inputs, name: str, i: int | None, side: float) -> Inputs:
    if i is None:
        return replace(inputs, shared={**inputs.shared, name: inputs.number(name) + side})
    values = list(inputs.values)
    values[i] = {**values[i], name: float(values[i][name]) + side}
    return replace(inputs, values=values)


def _numbers_of(prepared: Prepared) -> dict[Place, Tensor]:
    import torch

    return {
        (kind, name, i): torch.as_tensor(value, dtype=torch.float64)
        for kind in ("numbers", "rows", "columns")
        for name, many in getattr(prepared, kind).items()
        for i, value in enumerate(many)
    }


def _of_numbers(
    method: Method, inputs: Inputs, places: Sequence[Place], gradient: Tensor
) -> dict[Place, Tensor]:
    """Return ``dL / d number`` in float64, of the shape of the number."""
    import torch

    assert method.prepare is not None
    assert method.entry is not None
    prepared = method.prepare(inputs)
    leaves = {place: _leaf(prepared, place, gradient) for place in places}
    found = {place: torch.zeros_like(leaf, dtype=torch.float64) for place, leaf in leaves.items()}
    with torch.enable_grad():
        for block, part in _blocks(inputs, _with(prepared, leaves), gradient):
            out = method.entry(block)
            slopes = torch.autograd.grad(out, [*leaves.values()], part, allow_unused=True)
            for place, slope in zip(leaves, slopes, strict=True):
                if slope is not None:
                    found[place] += slope
    return found


def _leaf(prepared: Prepared, place: Place, like: Tensor) -> Tensor:
    import torch

    kind, name, i = place
    value = torch.as_tensor(getattr(prepared, kind)[name][i], dtype=torch.float32)
    return value.to(like.device).detach().clone().requires_grad_()


def _with(prepared: Prepared, leaves: Mapping[Place, Tensor]) -> Prepared:
    """Return what was prepared, with tensors for some of its numbers."""
    kinds: dict[str, Any] = {
        kind: {name: list(many) for name, many in getattr(prepared, kind).items()}
        for kind in ("numbers", "rows", "columns")
    }
    for (kind, name, i), leaf in leaves.items():
        kinds[kind][name][i] = leaf
    return replace(prepared, **kinds)


def _blocks(inputs: Inputs, prepared: Prepared, gradient: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Yield the blocks of a tensor, each with its part of ``dL / dW``, float32."""
    table = bool(prepared.rows or prepared.columns)
    shape = eager.table_shape(prepared, gradient.shape) if table else (-1,)
    flat, start = gradient.reshape(shape), 0
    for block in (eager.row_blocks if table else eager.flat_blocks)(inputs, prepared):
        stop = start + len(block.models[0])
        yield block, flat[start:stop].float()
        start = stop

"""Dot products of models or of task vectors: of whole tensors, of their rows, of their columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from merge_core.contract import Inputs, Prepared, Tensor, required
from merge_core.kernels.eager import row_blocks
from merge_core.methods.shared.weighted_sum import vectors
from merge_core.numerics.exact_sums import dots, row_dots


def products_of(inputs: Inputs, *, with_base: bool = False) -> list[list[float]]:
    """Return the dot products of all ``v_i`` with each other, of flat vectors, in float64.

    ``with_base``: of the base and the models as they are instead of ``v_i``.
    """
    many = [required(inputs.base), *inputs.models] if with_base else inputs.models
    flat = [x.reshape(-1) for x in many]
    base = None if with_base or inputs.base is None else inputs.base.reshape(-1)

    def part(start: int, stop: int) -> Iterator[Tensor]:
        ground = None if base is None else base[start:stop].float()
        for x in flat:
            piece = x[start:stop].float()
            yield (piece if ground is None else piece - ground).double()

    return inputs.remembered(
        f"products of {len(flat)}" + (", from the base" if base is not None else ""),
        range(len(inputs.models)),
        lambda: dots(part, flat[0].numel(), len(flat)),
    )


def tensor_products(inputs: Inputs) -> list[list[Tensor]]:
    """Return :func:`products_of` as tensors of no dimension, float64."""
    import torch

    return [[torch.tensor(x, dtype=torch.float64) for x in row] for row in products_of(inputs)]


def line_products(inputs: Inputs, *, columns: bool = False) -> list[list[Tensor]]:
    """Return the dot products of the rows of all ``v_i`` with each other, or of their columns.

    A row is what the last axis holds, a column what the first axis holds.

    Returns:
        For each pair of models ``(rows,)`` or ``(columns,)`` float64, the other axes flattened.
    """
    import torch

    def turned(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], math.prod(x.shape[1:])).T.contiguous()

    def compute() -> list[list[Tensor]]:
        of = inputs
        if columns:
            base = None if inputs.base is None else turned(inputs.base)
            of = replace(inputs, models=[*map(turned, inputs.models)], base=base)
        blocks = map(vectors, row_blocks(of, Prepared()))
        found = [[[row_dots(a, b) for b in many] for a in many] for many in blocks]
        none, k = inputs.models[0].new_zeros(0, dtype=torch.float64), range(len(inputs.models))
        return [[torch.cat([none, *(part[i][j] for part in found)]) for j in k] for i in k]

    what = "column products" if columns else "row products"
    return inputs.remembered(what, range(len(inputs.models)), compute)


def length_of(products: Any, factors: Any) -> float:
    """Return the norm of ``sum_i factor_i x_i``, from the dot products of the ``x_i``.

    ``products``: numpy, ``(models, models)`` float64; ``factors``: numpy, ``(models,)`` float64.
    """
    return math.sqrt(max(0.0, float(factors @ products @ factors)))

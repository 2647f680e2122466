"""Dot products of models or of task vectors: of whole tensors, of their rows, of their columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from merge_core.contract import Inputs, Prepared
from merge_core.kernels.eager import row_blocks
from merge_core.methods.shared.weighted_sum import vectors
from merge_core.numerics.exact_sums import dots, row_dots

if TYPE_CHECKING:
    from torch import Tensor


def products_of(tensors: Sequence[Tensor], inputs: Inputs, *, from_base: bool) -> list[list[float]]:
    """Return the dot products of all tensors with each other, of flat vectors, in float64.

    Args:
        tensors: ``(*shape)`` each, stored type.
        inputs: Whose memory keeps the products.
        from_base: Measure the tensors from the base: products of task vectors.
    """
    flat = [x.reshape(-1) for x in tensors]
    base = inputs.base.reshape(-1) if from_base and inputs.base is not None else None

    def part(start: int, stop: int) -> Iterator[Tensor]:
        ground = None if base is None else base[start:stop].float()
        for x in flat:
            piece = x[start:stop].float()
            yield (piece if ground is None else piece - ground).double()

    found: list[list[float]] = inputs.remembered(
        f"products of {len(flat)}" + (", from the base" if base is not None else ""),
        range(len(inputs.models)),
        lambda: dots(part, flat[0].numel(), len(flat)),
    )
    return found


def length_of(products: Any, factors: Any) -> float:
    """Return the norm of ``sum_i factor_i x_i``, from the dot products of the ``x_i``.

    Args:
        products: numpy, float64 ``(models, models)``.
        factors: numpy, float64 ``(models,)``.
    """
    return math.sqrt(max(0.0, float(factors @ products @ factors)))


def row_products(inputs: Inputs) -> list[list[Tensor]]:
    """Return the dot products of the task vectors' rows (the models' without a base).

    Returns:
        For each pair of models ``(rows,)`` float64; a row is what the last axis holds.
    """

    def compute() -> list[list[Tensor]]:
        found: list[list[list[Tensor]]] = []
        for block in row_blocks(inputs, Prepared()):
            many = vectors(block)
            found.append([[row_dots(a, b) for b in many] for a in many])
        return _joined(found)

    kept: list[list[Tensor]] = inputs.remembered("row products", range(len(inputs.models)), compute)
    return kept


def column_products(inputs: Inputs) -> list[list[Tensor]]:
    """Return the dot products of the columns, as :func:`row_products` does for rows.

    A column is what the first axis holds; the others are ``(columns,)``, flattened.
    """

    def compute() -> list[list[Tensor]]:
        height = inputs.models[0].shape[0]
        turned = replace(
            inputs,
            models=[x.reshape(height, -1).T.contiguous() for x in inputs.models],
            base=None if inputs.base is None else inputs.base.reshape(height, -1).T.contiguous(),
            once=None,
        )
        return row_products(turned)

    kept: list[list[Tensor]] = inputs.remembered(
        "column products", range(len(inputs.models)), compute
    )
    return kept


def _joined(found: list[list[list[Tensor]]]) -> list[list[Tensor]]:
    import torch

    k = len(found[0]) if found else 0
    return [[torch.cat([part[i][j] for part in found]) for j in range(k)] for i in range(k)]

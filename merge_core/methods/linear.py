"""Weighted mean of models ("model soup")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from merge_core.methods.declaration import Inputs, Method, Param

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = sum_i weight_i W_i``, divided by ``sum_i weight_i`` where ``normalize`` is true.

    Returns:
        ``(*shape)`` float32.

    Raises:
        ParameterError: ``normalize`` is true and the weights sum to zero.
    """
    weights = inputs.numbers("weight")
    total = sum(weights)
    if inputs.shared["normalize"] and abs(total) < 1e-8:
        raise ParameterError(
            f"the weights of 'linear' sum to {total:g} and cannot be normalized; got {weights}. "
            f"Set normalize: false or other weights"
        )
    out = inputs.models[0].float() * weights[0]
    for model, weight in zip(inputs.models[1:], weights[1:], strict=True):
        out += model.float() * weight
    return out.div_(total) if inputs.shared["normalize"] else out


METHOD = Method(
    name="linear",
    merge=_merge,
    params=(
        Param("weight", "factor on the model's weights", low=0, high=1, start=1),
        Param(
            "normalize",
            "divide by the sum of the weights",
            default=True,
            scope="shared",
            choices=(True, False),
        ),
    ),
    base="none",
    models=(1, None),
    reference="arXiv:2203.05482",
)

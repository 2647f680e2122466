"""One model as it is, times a factor: what layer stacking is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = scale W_1``. Returns ``(*shape)`` float32."""
    return inputs.models[0].float() * inputs.numbers("scale")[0]


METHOD = Method(
    name="passthrough",
    merge=_merge,
    params=(Param("scale", "factor on the model's weights", low=0, high=2, default=1.0),),
    base="none",
    models=(1, 1),
    reference="arXiv:2312.15166",
)

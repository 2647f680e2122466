"""One model as it is, times a factor: what layer stacking is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Param, Prepared

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Take the factor."""
    return Prepared({"scale": inputs.numbers("scale")})


def _entry(block: Block) -> Tensor:
    """``out = scale W_1``."""
    return block.models[0] * block.numbers["scale"][0]


METHOD = Method(
    name="passthrough",
    prepare=_prepare,
    entry=_entry,
    params=(Param("scale", "factor on the model's weights", low=0, high=2, default=1.0),),
    base="none",
    models=(1, 1),
    source="arXiv:2312.15166",
)

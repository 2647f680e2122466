"""Moves the base towards another model where the two are close, and hardly where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.methods.declaration import Inputs, Method, Param

if TYPE_CHECKING:
    from torch import Tensor


def _merge(inputs: Inputs) -> Tensor:
    """``out = w W_1 + (1 - w) W_b`` with ``w = clamp(t / max(|d_1|, 1e-6), 0, 1)`` per entry.

    Returns:
        ``(*shape)`` float32; entries within ``t`` of the base are those of the other model.
    """
    assert inputs.base is not None
    base, model = inputs.base.float(), inputs.models[0].float()
    distance = (base - model).abs_().clamp_(min=1e-6)
    share = (inputs.number("t") / distance).clamp_(0, 1)
    return (model * share).add_(base * (1 - share))


METHOD = Method(
    name="nearswap",
    merge=_merge,
    params=(
        Param(
            "t",
            "distance below which an entry is taken over",
            low=0,
            high=0.01,
            minimum=0,
            scope="shared",
            start=0.001,
        ),
    ),
    base="required",
    models=(2, 2),
    reference="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
)

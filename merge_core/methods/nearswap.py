"""Moves the base towards another model where the two are close, and hardly where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_core.contract import Block, Inputs, Method, Param, Prepared

if TYPE_CHECKING:
    from torch import Tensor


def _prepare(inputs: Inputs) -> Prepared:
    """Take the distance."""
    return Prepared({"t": [inputs.number("t")]})


def _entry(block: Block) -> Tensor:
    """``out = w W_1 + (1 - w) W_b`` with ``w = clamp(t / max(|d_1|, 1e-6), 0, 1)`` per entry.

    Entries within ``t`` of the base are those of the other model.
    """
    assert block.base is not None
    distance = (block.base - block.models[0]).abs().clamp(min=1e-6)
    share = (block.numbers["t"][0] / distance).clamp(0, 1)
    return block.models[0] * share + block.base * (1 - share)


METHOD = Method(
    name="nearswap",
    prepare=_prepare,
    entry=_entry,
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
    source="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
)

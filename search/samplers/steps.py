"""The steps of a search by gradient, as plain values: what is to be done, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Places = Mapping[str, tuple[int, ...]]  # task -> places in its order of the search pool


@dataclass(frozen=True)
class Measured:
    """What a step has measured at its point.

    Args:
        slopes: Knob -> ``dL / d value``; empty where the step failed, and at a mean.
        loss: Of the items that gave the slopes, in nats; None where there are no slopes.
        held_out: Loss of the held-out items; None where they were not looked at.
        items: What it cost, in evaluations of an item.
        mean: Whether it was the mean of the points before it, which leads nowhere.
    """

    slopes: Mapping[str, float]
    loss: float | None = None
    held_out: float | None = None
    items: int = 0
    mean: bool = False


@dataclass(frozen=True)
class Step:
    """What is to be done next.

    Args:
        point: A value for every knob of the space, those that stay as they are included.
        learn: Items whose loss gives the slopes; none at a mean.
        look: Held-out items whose loss is to be measured; none between looks.
        scored: Whether the whole search pool is to be scored there.
        mean: Whether it is the mean of the points before it, the last one of a search.
    """

    point: Mapping[str, Any]
    learn: Places
    look: Places
    scored: bool
    mean: bool = False

"""The steps of a search by gradient, as plain values: what is to be done, and what was measured.

A step's items are learnt from in ``PARTS``, each by one backward pass of its own, whose slopes are
added in their order. So they may be learnt from by as many workers, and the sums are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Places = Mapping[str, tuple[int, ...]]  # task -> places in its order of the search pool


PARTS = 4


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

    def batches(self) -> list[Batch]:
        """Return the parts that the step's items are learnt from in, each with some of each task.

        Fewer where there are fewer items; none at a mean.
        """
        shares = [{t: x[i::PARTS] for t, x in self.learn.items()} for i in range(PARTS)]
        return [Batch(self.point, share, self.learn) for share in shares if any(share.values())]

    def joined(self, parts: Sequence[Measured]) -> Measured:
        """Return what the whole step has measured, from its parts and its look, in their order."""
        losses = [part.loss for part in parts if part.loss is not None]
        looks = [part.held_out for part in parts if part.held_out is not None]
        slopes: dict[str, float] = {}
        for part in parts:
            for name, slope in part.slopes.items():
                slopes[name] = slopes.get(name, 0.0) + slope
        items = sum(part.items for part in parts)
        loss = sum(losses) if losses else None
        return Measured(slopes, loss, looks[0] if looks else None, items, self.mean)


@dataclass(frozen=True)
class Batch:
    """A part of a step: what is learnt from by one backward pass.

    Args:
        point: A value for every knob of the space.
        learn: Items whose loss gives the slopes.
        of: All items of the step: a loss counts as it does among them.
    """

    point: Mapping[str, Any]
    learn: Places
    of: Places

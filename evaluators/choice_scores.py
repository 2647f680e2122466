"""Graded scores of a question with choices: by how much its right one is preferred."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

SIZES: Mapping[str, Callable[[str], int]] = MappingProxyType(
    {"acc": lambda _: 1, "acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}
)  # what a metric divides a choice's nats by


def mean_sized(metric: str, choices: Sequence[str]) -> list[float]:
    """Return what a loss divides each choice's nats by: what the metric does, next to the mean.

    So they are in the order that the metric compares them in, and still nats: by the softmax of
    nats per character all choices would be nearly alike, and an item of long ones weigh little.
    """
    sizes = [SIZES.get(metric, SIZES["acc"])(choice) for choice in choices]
    return [size * len(sizes) / sum(sizes) for size in sizes]


def likeliest(metric: str, choices: Sequence[str], nats: Sequence[float]) -> int:
    """Return which choice is the likeliest as a metric compares them; of a tie the first one."""
    size = SIZES.get(metric, SIZES["acc"])
    shares = [x / size(choice) for x, choice in zip(nats, choices, strict=True)]
    return shares.index(max(shares))


def margin(nats: Sequence[float], right: int) -> float:
    """Return the log-probability of the right choice minus that of the best other one, in nats."""
    return nats[right] - max(x for i, x in enumerate(nats) if i != right)


def probability(nats: Sequence[float], right: int) -> float:
    """Return the right choice's share of all choices' probability: their softmax, in [0, 1].

    Of two choices it is the logistic function of the margin. Who knows nothing of which one is
    right has one over the number of choices on average, whatever the shares.
    """
    most = max(nats)
    shares = [math.exp(x - most) for x in nats]  # at most 1: none overflows
    return shares[right] / sum(shares)


GRADED: Mapping[str, Callable[[Sequence[float], int], float]] = MappingProxyType(
    {"margin": margin, "probability": probability}
)

"""Graded scores of a question with choices: by how much its right one is preferred."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType


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

"""Targets -> continuations to be read, and losses from their nats.

A target whose loss is a sum over its texts comes apart into one part for each, so that a long
document need not be held whole; in one with several choices all nats are needed for each slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.engines.encoding import Ask, TokenIds
from evaluators.engines.hf.graph_forward import Row, rows_of
from evaluators.target import Choice, Target, Text

Numbers = npt.NDArray[np.float64]
Value = Callable[[Numbers], tuple[float, Numbers]]  # nats -> loss, its slope by each of them


@dataclass(frozen=True, eq=False)
class Part:
    """What is read together of one target."""

    place: int  # of the target
    rows: tuple[Row, ...]
    value: Value  # of the nats of all continuations, as ``GraphForward.nats`` orders them

    def apart(self, nats: Numbers) -> list[Part]:
        """Return a part for each continuation, with the slopes that it has at these nats."""
        loss, slopes = self.value(nats)
        lone = [Row(row.context, (x,)) for row in self.rows for x in row.continuations]
        return [
            Part(self.place, (row,), _fixed(0.0 if k else loss, slopes[k : k + 1]))
            for k, row in enumerate(lone)
        ]


def parts_of(place: int, target: Target, ids: TokenIds, *, shared: bool) -> list[Part]:
    """Return what is to be read for a target.

    Args:
        place: The target's number.
        target: Itself.
        ids: Encodes.
        shared: Whether a context may be read once for several continuations.

    Raises:
        ItemError: A continuation has no tokens, or more than the model takes.
    """
    chosen = range(len(target.choices)) if target.competing else target.right
    encoded = [_encoded(target.choices[k], ids) for k in chosen]
    right = [k for k, number in enumerate(chosen) if number in target.right]
    sizes = np.array([size for _, _, size in encoded])
    if len(encoded) == 1 and not target.competing:
        ((asks, signs, size),) = encoded
        return [
            Part(place, tuple(rows_of([ask], shared)[0]), _linear(-sign / size))
            for ask, sign in zip(asks, signs, strict=True)
        ]
    rows, order = rows_of([ask for asks, _, _ in encoded for ask in asks], shared)
    count = sum(len(row.continuations) for row in rows)
    table = np.zeros((len(encoded), count))  # how often, and with what sign, each is in a choice
    owners = [(k, sign) for k, (_, signs, _) in enumerate(encoded) for sign in signs]
    for (k, sign), n in zip(owners, order, strict=True):
        table[k, n] += sign
    loss = _competing if target.competing else _free
    return [Part(place, tuple(rows), lambda nats: loss(nats, table, sizes, right))]


def _encoded(choice: Choice, ids: TokenIds) -> tuple[list[Ask], list[float], float]:
    """Return what a choice reads, the sign of each, and its size."""
    texts = [ask for text in choice.texts for ask in _asks(text, ids)]
    less = [ask for text in choice.less for ask in _asks(text, ids)]
    size = choice.size or float(sum(len(ask.continuation) for ask in texts))
    return [*texts, *less], [1.0] * len(texts) + [-1.0] * len(less), size


def _asks(text: Text, ids: TokenIds) -> list[Ask]:
    return ids.windows(text) if isinstance(text, str) else [ids.pair(*text)]


def _linear(slope: float) -> Value:
    return lambda nats: (float(slope * nats.sum()), np.full_like(nats, slope))


def _fixed(loss: float, slopes: Numbers) -> Value:
    return lambda nats: (loss, slopes)


def _free(
    nats: Numbers, table: Numbers, sizes: Numbers, right: Sequence[int]
) -> tuple[float, Numbers]:
    most, shares = _soft(table @ nats)
    return -most / sizes.mean(), -(shares / sizes.mean()) @ table


def _competing(
    nats: Numbers, table: Numbers, sizes: Numbers, right: Sequence[int]
) -> tuple[float, Numbers]:
    levels = table @ nats / sizes
    most, slopes = _soft(levels)
    best, shares = _soft(levels[list(right)])
    slopes[list(right)] -= shares
    return most - best, (slopes / sizes) @ table


def _soft(values: Numbers) -> tuple[float, Numbers]:
    """Return ``log sum exp`` of some values and its slopes, their softmax."""
    highest = values.max()
    shares = np.exp(values - highest)
    return float(highest + np.log(shares.sum())), shares / shares.sum()

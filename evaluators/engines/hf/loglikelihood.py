"""Log-likelihoods: each context is read once, and every continuation after it from there.

    tokens          c1 c2 c3 c4 | x1 x2 x3       context | continuation
    are read at      *  *  *  * |  *  *
    logits                   l0 | l1 l2
    they score               x1 | x2 x3

All that follows one context has its first token from one row of logits, ``l0``. Only continuations
of several tokens are read, the last token never: each in a row of its own, behind a copy of the
context's keys and values.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from evaluators.engines.encoding import Ask, by_context
from evaluators.engines.hf.batching import Budget, filled, padded, widened
from evaluators.engines.hf.prefix_forward import Forward, Read, most_likely

_ROOM = 16  # a short continuation's memory has place for this many: the next length uses it too
_CHUNK = 256  # tokens of a continuation at a time: a bound on the logits held


def loglikelihoods(
    forward: Forward, budget: Budget, asks: Sequence[Ask]
) -> list[tuple[float, bool]]:
    """Return ``(nats, greedy)`` per ask, in their order.

    Rounded as lm-eval rounds: each token's value to the model's dtype, then the sum.
    """
    kept, groups = by_context(asks)
    lengths: dict[int, list[list[Ask]]] = defaultdict(list)
    for group in groups:
        lengths[padded(len(group[0].context))].append(group)
    answers: dict[Ask, tuple[float, bool]] = {}
    for length in sorted(lengths, reverse=True):  # the most memory first
        answer_all = functools.partial(_answer, forward, budget, length)
        for found in budget.batches(lengths[length], length, answer_all):
            answers.update(found)
    return [answers[ask] for ask in kept]


def _answer(
    forward: Forward, budget: Budget, length: int, groups: Sequence[list[Ask]]
) -> dict[Ask, tuple[float, bool]]:
    """Answer all that is asked after the contexts of one batch."""
    state, logits = forward.read([group[0].context for group in groups], length)
    asks = [(row, ask) for row, group in enumerate(groups) for ask in group]
    rows = [row for row, _ in asks]
    first = torch.tensor([int(ask.continuation[0]) for _, ask in asks], device=forward.device)
    logs = torch.log_softmax(logits, dim=-1, out=logits)
    sums = logs[rows, first].double().cpu().numpy()
    greedy = (most_likely(logs)[rows] == first).cpu().numpy()
    later: dict[int, list[int]] = defaultdict(list)
    for place, (_, ask) in enumerate(asks):
        if len(ask.continuation) > 1:
            later[widened(len(ask.continuation) - 1)].append(place)
    for more, places in sorted(later.items()):
        read = functools.partial(_laters, forward, state, more)
        batches = budget.batches([asks[place] for place in places], length + more, read)
        found = (answer for batch in batches for answer in batch)
        for place, (nats, best) in zip(places, found, strict=True):
            sums[place] += nats
            greedy[place] &= best
    rounded = torch.from_numpy(sums).to(logits.dtype).tolist()
    told = zip(rounded, greedy.tolist(), strict=True)
    return dict(zip((ask for _, ask in asks), told, strict=True))


def _laters(
    forward: Forward,
    state: Read,  # the contexts
    length: int,
    asks: Sequence[tuple[int, Ask]],  # with the number of their row in ``state``
) -> list[tuple[float, bool]]:
    """Score what follows the first tokens of some continuations, padded on the right."""
    some = [asks[i % len(asks)] for i in range(filled(len(asks), length))]
    ids = np.zeros((len(some), length + 1), dtype=np.int64)
    for row, (_, ask) in enumerate(some):
        ids[row, : len(ask.continuation)] = ask.continuation
    wanted = torch.from_numpy(ids).to(forward.device)
    state = forward.only(state, [row for row, _ in some], -(-length // _ROOM) * _ROOM)
    parts = []
    for start in range(0, length, _CHUNK):
        end = min(start + _CHUNK, length)
        state, logits = forward.read_on(state, wanted[:, start:end])
        # In the model's dtype, as lm-eval does; and in place, since a second copy costs more.
        logs = torch.log_softmax(logits, dim=-1, out=logits)
        following = wanted[:, start + 1 : end + 1]
        nats = logs.gather(-1, following[..., None])[..., 0]
        parts.append((nats, most_likely(logs) == following))
    told, best = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return [
        (row[: len(ask.continuation) - 1].sum(), alike[: len(ask.continuation) - 1].all())
        for (_, ask), row, alike in zip(
            asks, told.double().cpu().numpy(), best.cpu().numpy(), strict=False
        )
    ]

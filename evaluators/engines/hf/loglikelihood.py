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
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evaluators.engines.encoding import Ask, Ids
from evaluators.engines.hf.batching import Budget, filled, padded, widened
from evaluators.engines.hf.prefix_forward import Forward, Read, most_likely

Sums = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_Answer = tuple[float, bool]
_ROOM = 16  # a short continuation's memory has place for this many: the next length uses it too
_CHUNK = 256  # tokens of a continuation at a time: a bound on the logits held


@dataclass(frozen=True)
class _Ending:
    ids: Ids
    asked: list[int] = field(default_factory=list)  # places in the call, twins share one


@dataclass(frozen=True)
class _Group:
    """One context and all that is asked after it."""

    context: Ids
    endings: list[_Ending]


def loglikelihoods(
    forward: Forward, budget: Budget, asks: Sequence[Ask]
) -> list[tuple[float, bool]]:
    """Return ``(nats, greedy)`` per ask, in their order.

    Rounded as lm-eval rounds: each token's value to the model's dtype, then the sum.
    """
    answers: list[tuple[float, bool]] = [(math.nan, False)] * len(asks)
    lengths: dict[int, list[_Group]] = defaultdict(list)
    for group in _grouped(asks):
        lengths[padded(len(group.context))].append(group)
    for length in sorted(lengths, reverse=True):  # the most memory first
        answer_all = functools.partial(_answer, forward, budget, length)
        for found in budget.batches(lengths[length], length, answer_all):
            for ending, answer in found:
                for place in ending.asked:
                    answers[place] = answer
    return answers


def _grouped(asks: Sequence[Ask]) -> list[_Group]:
    """Gather continuations by context, both without twins; the order of asking is forgotten."""
    contexts: dict[bytes, dict[bytes, _Ending]] = defaultdict(dict)
    whole: dict[bytes, Ids] = {}
    for place, ask in enumerate(asks):
        context, ending = ask.context.tobytes(), ask.continuation.tobytes()
        whole[context] = ask.context
        contexts[context].setdefault(ending, _Ending(ask.continuation)).asked.append(place)
    return [
        _Group(whole[context], [endings[key] for key in sorted(endings)])
        for context, endings in sorted(contexts.items())
    ]


def _answer(
    forward: Forward, budget: Budget, length: int, groups: Sequence[_Group]
) -> list[tuple[_Ending, _Answer]]:
    """Answer all that is asked after the contexts of one batch."""
    state, logits = forward.read([group.context for group in groups], length)
    endings = [(i, ending) for i, group in enumerate(groups) for ending in group.endings]
    sums, greedy = _firsts(logits, endings)
    later: dict[int, list[int]] = defaultdict(list)
    for place, (_, ending) in enumerate(endings):
        if len(ending.ids) > 1:
            later[widened(len(ending.ids) - 1)].append(place)
    for more, places in sorted(later.items()):
        read = functools.partial(_laters, forward, state, endings, more)
        for part, nats, best in budget.batches(places, length + more, read):
            for place, told, alike in zip(
                part, nats.double().cpu().numpy(), best.cpu().numpy(), strict=False
            ):
                n = len(endings[place][1].ids) - 1  # what follows is padding
                sums[place] += told[:n].sum()
                greedy[place] &= bool(alike[:n].all())
    rounded = torch.from_numpy(sums).to(logits.dtype).tolist()
    return [
        (ending, (rounded[place], bool(greedy[place]))) for place, (_, ending) in enumerate(endings)
    ]


def _firsts(
    logits: Tensor,  # (contexts, vocabulary)
    endings: Sequence[tuple[int, _Ending]],  # with the number of their context
) -> tuple[Sums, Flags]:  # one entry per ending
    """Score the first token of every ending: all from one row per context."""
    logs = torch.log_softmax(logits, dim=-1, out=logits)
    best = most_likely(logs).cpu().numpy()
    rows = [i for i, _ in endings]
    wanted = np.array([ending.ids[0] for _, ending in endings], dtype=np.int64)
    nats = logs[rows, torch.from_numpy(wanted).to(logs.device)]
    return nats.double().cpu().numpy(), best[rows] == wanted


def _laters(
    forward: Forward,
    state: Read,  # the contexts
    endings: Sequence[tuple[int, _Ending]],  # with the number of their row in ``state``
    length: int,
    places: Sequence[int],
) -> tuple[Sequence[int], Tensor, Tensor]:  # the places; nats, is it the greedy one: (rows, length)
    """Score the tokens after the first of the endings at some places, padded on the right."""
    repeated = [places[i % len(places)] for i in range(filled(len(places), length))]
    some = [endings[place] for place in repeated]
    ids = np.zeros((len(some), length + 1), dtype=np.int64)
    for row, (_, ending) in enumerate(some):
        ids[row, : len(ending.ids)] = ending.ids
    wanted = torch.from_numpy(ids).to(forward.device)
    state = forward.only(state, [i for i, _ in some], -(-length // _ROOM) * _ROOM)
    nats, best = [], []
    for start in range(0, length, _CHUNK):
        end = min(start + _CHUNK, length)
        state, logits = forward.read_on(state, wanted[:, start:end])
        # In the model's dtype, as lm-eval does; and in place, since a second copy costs more.
        logs = torch.log_softmax(logits, dim=-1, out=logits)
        following = wanted[:, start + 1 : end + 1]
        nats.append(logs.gather(-1, following[..., None])[..., 0])
        best.append(most_likely(logs) == following)
    return places, torch.cat(nats, dim=1), torch.cat(best, dim=1)

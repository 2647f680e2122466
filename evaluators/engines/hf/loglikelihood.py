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


@dataclass(frozen=True)
class _Told:
    """Per token: its log-probability, and whether it is the most likely one."""

    nats: Tensor  # (rows, n), the model's dtype
    best: Tensor  # (rows, n) bool


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
    reader = _Reader(forward, state, endings)
    for more, places in sorted(later.items()):
        follow = functools.partial(reader.follow, more)
        for part, told in budget.batches(places, length + more, follow):
            _add(sums, greedy, part, [len(endings[p][1].ids) - 1 for p in part], told)
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


@dataclass(frozen=True)
class _Reader:
    """Reads endings after their contexts."""

    forward: Forward
    state: Read  # the contexts
    endings: Sequence[tuple[int, _Ending]]  # with the number of their row in ``state``

    def follow(
        self, length: int, places: Sequence[int]
    ) -> tuple[Sequence[int], _Told]:  # the places; of tokens after the first: (places, length)
        """Read the endings at some places, padded on the right."""
        n = len(places)
        repeated = [places[i % n] for i in range(filled(n, length))]
        some = [self.endings[place] for place in repeated]
        ids = np.zeros((len(some), length + 1), dtype=np.int64)
        for row, (_, ending) in enumerate(some):
            ids[row, : len(ending.ids)] = ending.ids
        wanted = torch.from_numpy(ids).to(self.forward.device)
        room = -(-length // _ROOM) * _ROOM
        state = self.forward.only(self.state, [i for i, _ in some], room)
        parts = []
        for start in range(0, length, _CHUNK):
            end = min(start + _CHUNK, length)
            state, logits = self.forward.read_on(state, wanted[:, start:end])
            parts.append(_told(logits, wanted[:, start + 1 : end + 1]))
        nats = torch.cat([part.nats for part in parts], dim=1)
        best = torch.cat([part.best for part in parts], dim=1)
        return places, _Told(nats[:n], best[:n])


def _told(
    logits: Tensor,  # (rows, n, vocabulary)
    wanted: Tensor,  # (rows, n)
) -> _Told:
    # In the model's dtype, as lm-eval does; and in place, since a second copy costs more.
    logs = torch.log_softmax(logits, dim=-1, out=logits)
    nats = logs.gather(-1, wanted[..., None])[..., 0]
    return _Told(nats, most_likely(logs) == wanted)


def _add(
    sums: Sums,
    greedy: Flags,
    places: Sequence[int],
    lengths: Sequence[int],
    told: _Told,
) -> None:
    """Add the later tokens of some endings to what is known of the first."""
    nats, best = told.nats.double().cpu().numpy(), told.best.cpu().numpy()
    for row, (place, n) in enumerate(zip(places, lengths, strict=True)):
        sums[place] += nats[row, :n].sum()
        greedy[place] &= bool(best[row, :n].all())

"""Greedy answers to many prompts at once; rows that have ended leave the batch.

An answer is what lm-eval gives with a batch of one: it ends at a stop string, at the model's or
the tokenizer's end token, or at ``max_gen_toks``. In a larger batch lm-eval writes on until the
last row is done, and shows what follows an end token that the model's settings do not know.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from evaluators.engines.encoding import Ids
from evaluators.engines.hf.batching import Budget, filled, padded
from evaluators.engines.hf.prefix_forward import Forward, most_likely
from evaluators.engines.stopping import Stopping, Watch, text_of
from evaluators.engines.token_engine import NO_CHOICE
from merge_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROOM = 64  # new tokens until the cache is copied


def greedy_answers(
    forward: Forward,
    budget: Budget,
    tokenizer: PreTrainedTokenizerBase,
    ends: set[int],  # tokens that end an answer
    prompts: Sequence[tuple[Ids, Stopping]],
) -> list[str]:
    """Return one continuation per prompt, in their order.

    Raises:
        NonFiniteError: A token was to be chosen from logits that are NaN or infinite.
    """
    kinds: dict[tuple[int, Stopping], dict[bytes, Ids]] = defaultdict(dict)  # twins once
    for ids, stop in prompts:
        kinds[padded(len(ids)), stop][ids.tobytes()] = ids
    answers: dict[tuple[bytes, Stopping], str] = {}
    for length, stop in sorted(kinds, reverse=True):  # the most memory first
        rows = sorted(kinds[length, stop].items())
        watch = Watch(tokenizer, stop.watched, ends)
        write = functools.partial(_write, forward, watch, length, stop.most_tokens)
        batches = budget.batches([ids for _, ids in rows], length + stop.most_tokens, write)
        written = (text_of(tokenizer, ids, stop) for batch in batches for ids in batch)
        answers.update(((key, stop), text) for (key, _), text in zip(rows, written, strict=True))
    return [answers[ids.tobytes(), stop] for ids, stop in prompts]


def _write(
    forward: Forward, watch: Watch, length: int, most: int, prompts: Sequence[Ids]
) -> list[list[int]]:
    """Write the answers of one batch, of ``most`` tokens at most."""
    written: list[list[int]] = [[] for _ in prompts]
    state, logits = forward.read(prompts, length, room=min(most, _ROOM))
    live = set(range(len(prompts)))
    rows = [i if i in live else -1 for i in range(len(logits))]  # whose answer; -1 nobody's
    for left in range(most - 1, -1, -1):
        chosen = most_likely(logits)  # NaN is highest, -inf is a mask
        if not torch.isfinite(logits.gather(-1, chosen[:, None])).all():
            raise NonFiniteError(NO_CHOICE)
        for i, token in zip(rows, chosen.tolist(), strict=True):
            if i in live:
                written[i].append(token)
        live -= watch.ended(sorted(live), written)
        if not live or left == 0:
            break
        keep = _staying(rows, live)
        if keep is not None:
            state, chosen = forward.only(state, keep, min(left, _ROOM)), chosen[keep]
            rows = [rows[k] if k not in keep[:n] else -1 for n, k in enumerate(keep)]
        state, next_logits = forward.read_on(state, chosen[:, None])
        logits = next_logits[:, -1]
    return written


def _staying(rows: Sequence[int], live: set[int]) -> list[int] | None:
    """Return the places of the rows to go on with, ``None`` for all.

    Rows that have ended stay until a quarter has, since each move copies the cache; and up to
    ``filled``, the same one twice if need be, so that the others keep their bits.
    """
    going = [place for place, i in enumerate(rows) if i in live]
    n = filled(len(going))
    if n == len(rows) or len(going) * 4 > len(rows) * 3:
        return None
    return [going[k % len(going)] for k in range(n)]

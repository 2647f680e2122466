"""Greedy answers to many prompts at once; rows that have ended leave the batch.

An answer is what lm-eval gives with a batch of one: it ends at a stop string, at the model's or
the tokenizer's end token, or at ``max_gen_toks``. In a larger batch lm-eval writes on until the
last row is done, and shows what follows an end token that the model's settings do not know.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evaluators.engines.encoding import Ids, TokenIds
from evaluators.engines.hf.batching import Budget, filled, padded
from evaluators.engines.hf.prefix_forward import Forward, most_likely
from evaluators.engines.stopping import Stopping, Watch, end_tokens, text_of
from merge_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

_ROOM = 64  # new tokens until the cache is copied


@dataclass(frozen=True)
class _Prompt:
    ids: Ids
    asked: list[int] = field(default_factory=list)  # places in the call, twins share one


class Generator:
    """Writes greedy answers.

    Args:
        forward: The model.
        budget: Shared with the other uses of the model.
        ids: How prompts become tokens.
        tokenizer: How tokens become text.
        settings: The model's, for its end tokens.
    """

    def __init__(
        self,
        forward: Forward,
        budget: Budget,
        ids: TokenIds,
        tokenizer: PreTrainedTokenizerBase,
        settings: GenerationConfig | None,
    ) -> None:
        self._forward = forward
        self._budget = budget
        self._ids = ids
        self._tokenizer = tokenizer
        self._ends = end_tokens(tokenizer, settings)

    def answers(self, prompts: Sequence[tuple[str, Stopping]]) -> list[str]:
        """Return one continuation per prompt, in their order.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN or infinite.
            ItemError: A prompt has no tokens, or no room is left for it.
        """
        kinds: dict[tuple[int, Stopping], dict[bytes, _Prompt]] = defaultdict(dict)
        for place, (text, stop) in enumerate(prompts):
            ids = self._ids.prompt(text, stop.most_tokens)
            same = kinds[padded(len(ids)), stop].setdefault(ids.tobytes(), _Prompt(ids, []))
            same.asked.append(place)
        answers = [""] * len(prompts)
        for length, stop in sorted(kinds, reverse=True):  # the most memory first
            rows = [row for _, row in sorted(kinds[length, stop].items())]
            write = functools.partial(self._write, length=length, stop=stop)
            for written in self._budget.batches(rows, length + stop.most_tokens, write):
                for row, text in written:
                    for place in row.asked:
                        answers[place] = text
        return answers

    def _write(
        self, prompts: Sequence[_Prompt], length: int, stop: Stopping
    ) -> list[tuple[_Prompt, str]]:
        """Write the answers of one batch."""
        watch = Watch(self._tokenizer, stop.strings, self._ends)
        written: list[list[int]] = [[] for _ in prompts]
        state, logits = self._forward.read(
            [prompt.ids for prompt in prompts], length, room=min(stop.most_tokens, _ROOM)
        )
        live = set(range(len(prompts)))
        rows = [i if i in live else -1 for i in range(len(logits))]  # whose answer; -1 nobody's
        for left in range(stop.most_tokens - 1, -1, -1):
            chosen = _choose(logits)
            for i, token in zip(rows, chosen.tolist(), strict=True):
                if i in live:
                    written[i].append(token)
            live -= watch.ended(sorted(live), written)
            if not live or left == 0:
                break
            keep = _staying(rows, live)
            if keep is not None:
                state, chosen = self._forward.only(state, keep, min(left, _ROOM)), chosen[keep]
                rows = [rows[k] if k not in keep[:n] else -1 for n, k in enumerate(keep)]
            state, next_logits = self._forward.read_on(state, chosen[:, None])
            logits = next_logits[:, -1]
        texts = [text_of(self._tokenizer, ids, stop.strings) for ids in written]
        return list(zip(prompts, texts, strict=True))


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


def _choose(logits: Tensor) -> Tensor:
    """Return the most likely token of each row: (rows,)."""
    chosen = most_likely(logits)  # NaN is highest, -inf is a mask
    if not torch.isfinite(logits.gather(-1, chosen[:, None])).all():
        raise NonFiniteError("the logits of the next token are NaN or infinite, not finite")
    return chosen

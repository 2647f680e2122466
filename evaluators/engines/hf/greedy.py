"""Greedy answers to many prompts at once; rows that have ended leave the batch.

An answer is what lm-eval gives with a batch of one: it ends at a stop string, at the model's or
the tokenizer's end token, or at ``max_gen_toks``. In a larger batch lm-eval writes on until the
last row is done, and shows what follows an end token that the model's settings do not know.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evaluators.engines.hf.batching import Budget, Ids, TokenIds, filled, padded
from evaluators.engines.hf.prefix_forward import Forward, most_likely
from merge_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_LIMIT = 256
_ROOM = 64  # new tokens until the cache is copied
# What a greedy choice does not look at.
SAMPLING = {
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "top_h"),
}
HARMLESS = SAMPLING | {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "use_cache"),
    *("transformers_version", "_from_model_config", "cache_implementation"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    "return_dict_in_generate",
}


@dataclass(frozen=True, order=True)
class Rules:
    """When an answer ends."""

    most_tokens: int
    stops: tuple[str, ...]


@dataclass(frozen=True)
class _Prompt:
    ids: Ids
    asked: list[int] = field(default_factory=list)  # places in the call, twins share one


def rules_of(how: Mapping[str, Any]) -> Rules | None:
    """Read generation settings in lm-eval's words; ``None`` where they ask for more than greedy."""
    if set(how) - {"until", *LIMITS} - SAMPLING or how.get("do_sample"):
        return None
    if how.get("do_sample") is None and float(how.get("temperature") or 0) > 0:
        return None
    return ends_of(how)


def ends_of(how: Mapping[str, Any]) -> Rules:
    """Read when an answer ends from generation settings in lm-eval's words."""
    until = how.get("until") or []
    return Rules(
        stops=(until,) if isinstance(until, str) else tuple(until), most_tokens=most_tokens(how)
    )


def most_tokens(how: Mapping[str, Any]) -> int:
    """Return how many tokens an answer may have by generation settings in lm-eval's words."""
    limits = [how[name] for name in LIMITS if how.get(name) is not None]
    return int(limits[0]) if limits else _DEFAULT_LIMIT


def is_plain(settings: GenerationConfig | None) -> bool:
    """Tell whether a model's own settings leave a greedy choice as it is."""
    return settings is None or set(settings.to_diff_dict()) <= HARMLESS


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

    def answers(self, prompts: Sequence[tuple[str, Rules]]) -> list[str]:
        """Return one continuation per prompt, in their order.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN or infinite.
            EvaluationError: A prompt has no tokens, or no room is left for it.
        """
        kinds: dict[tuple[int, Rules], dict[bytes, _Prompt]] = defaultdict(dict)
        for place, (text, rules) in enumerate(prompts):
            ids = self._ids.prompt(text, rules.most_tokens)
            same = kinds[padded(len(ids)), rules].setdefault(ids.tobytes(), _Prompt(ids, []))
            same.asked.append(place)
        answers = [""] * len(prompts)
        for length, rules in sorted(kinds, reverse=True):  # the most memory first
            rows = [row for _, row in sorted(kinds[length, rules].items())]
            write = functools.partial(self._write, length=length, rules=rules)
            for written in self._budget.batches(rows, length + rules.most_tokens, write):
                for row, text in written:
                    for place in row.asked:
                        answers[place] = text
        return answers

    def _write(
        self, prompts: Sequence[_Prompt], length: int, rules: Rules
    ) -> list[tuple[_Prompt, str]]:
        """Write the answers of one batch."""
        watch = _Watch(self._tokenizer, rules.stops, self._ends)
        written: list[list[int]] = [[] for _ in prompts]
        state, logits = self._forward.read(
            [prompt.ids for prompt in prompts], length, room=min(rules.most_tokens, _ROOM)
        )
        live = set(range(len(prompts)))
        rows = [i if i in live else -1 for i in range(len(logits))]  # whose answer; -1 nobody's
        for left in range(rules.most_tokens - 1, -1, -1):
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
        texts = [text_of(self._tokenizer, ids, rules.stops) for ids in written]
        return list(zip(prompts, texts, strict=True))


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], stops: Iterable[str]) -> str:
    """Return an answer's text up to its first stop string or end token."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    for stop in (*stops, tokenizer.eos_token):
        if stop:
            text = text.split(stop)[0]
    return text


class _Watch:
    """Sees where answers end."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], ends: set[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._ends = ends
        lengths = [len(tokenizer.encode(s, add_special_tokens=False)) for s in self._stops]
        self._span = max(lengths, default=0) + 2  # a stop may come in other tokens than encoded

    def ended(self, live: Sequence[int], written: Sequence[list[int]]) -> set[int]:
        """Return those of ``live`` whose last token ended them."""
        done = {i for i in live if written[i][-1] in self._ends}
        if self._stops:
            tails = self._tokenizer.batch_decode([written[i][-self._span :] for i in live])
            done |= {
                i
                for i, tail in zip(live, tails, strict=True)
                if any(stop in tail for stop in self._stops)
            }
        return done


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


def end_tokens(tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig | None) -> set[int]:
    """Return the tokens that end an answer: the model's and the tokenizer's."""
    said = settings.eos_token_id if settings else None
    model = said if isinstance(said, list) else [said]
    return {int(t) for t in (*model, tokenizer.eos_token_id) if t is not None}

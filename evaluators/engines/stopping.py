"""What stops a generation: stop strings, end tokens, most tokens; and whether it is a greedy one.

Settings are in lm-eval's words, as they stand in a task's file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

THINK_END = "think_end_token"
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_LIMIT = 256
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
class Stopping:
    """When an answer ends, end tokens aside, and where it begins.

    Args:
        most_tokens: It has, with the thoughts before it.
        strings: That end it.
        thoughts, token: What ends the thoughts before it, as text or as the number of a token; ""
            and -1 where there are none.
    """

    most_tokens: int
    strings: tuple[str, ...]
    thoughts: str = ""
    token: int = -1

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> Stopping:
        """Read it from generation settings."""
        until, end = how.get("until") or [], how.get(THINK_END)
        strings = (until,) if isinstance(until, str) else tuple(until)
        token = end if isinstance(end, int) else -1
        return cls(most_tokens(how), strings, end if isinstance(end, str) else "", token)

    @property
    def thinks(self) -> bool:
        """Whether there are thoughts before the answer."""
        return bool(self.thoughts) or self.token >= 0

    @property
    def watched(self) -> tuple[str, ...]:
        """The strings that end a generation: none where they may stand in thoughts."""
        return () if self.thinks else self.strings

    def cut(self, text: str) -> str:
        """Return the answer in a text: what follows the thoughts, up to the first stop string."""
        if self.thinks:
            text = (text.split(self.thoughts)[-1] if self.thoughts else text).lstrip()
        for stop in filter(None, self.strings):
            text = text.split(stop)[0]
        return text


def most_tokens(how: Mapping[str, Any]) -> int:
    """Return how many tokens an answer may have."""
    limits = [how[name] for name in LIMITS if how.get(name) is not None]
    return int(limits[0]) if limits else _DEFAULT_LIMIT


def is_greedy(how: Mapping[str, Any]) -> bool:
    """Tell whether generation settings ask for the greedy choice and no more."""
    return not (set(how) - {"until", THINK_END, *LIMITS} - SAMPLING or samples(how))


def samples(how: Mapping[str, Any]) -> bool:
    """Tell whether generation settings ask for tokens drawn at random."""
    asked = how.get("do_sample")
    return float(how.get("temperature") or 0) > 0 if asked is None else bool(asked)


def leaves_greedy(settings: GenerationConfig | None) -> bool:
    """Tell whether a model's own settings leave a greedy choice as it is."""
    return settings is None or set(settings.to_diff_dict()) <= HARMLESS


def end_tokens(tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig | None) -> set[int]:
    """Return the tokens that end an answer: the model's and the tokenizer's."""
    said = settings.eos_token_id if settings else None
    model = said if isinstance(said, list) else [said]
    return {int(t) for t in (*model, tokenizer.eos_token_id) if t is not None}


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: Stopping) -> str:
    """Return an answer's text up to its first stop string or end token."""
    if stop.token in ids:
        ids = ids[len(ids) - ids[::-1].index(stop.token) :]
    text = stop.cut(str(tokenizer.decode(ids, skip_special_tokens=True)))
    return text.split(tokenizer.eos_token)[0] if tokenizer.eos_token else text


class Watch:
    """Sees where answers end: at the strings ``stops`` and the tokens ``ends``."""

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

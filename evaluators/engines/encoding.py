"""Context and continuation -> token ids: by lm-eval's rules, and once for all candidates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from merge_core.errors import EvaluationError, ItemError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]  # (n,)

_KEPT_TOKENS = 16_000_000  # 64 MB


@dataclass(frozen=True, eq=False)
class Ask:
    """A continuation to be scored after its context; both fit the model together."""

    context: Ids  # at least 1
    continuation: Ids  # at least 1


class TokenIds:
    """lm-eval's way to encode, with a memory: the same prompts come back with every candidate.

    Of token ids ``kept_tokens`` are remembered; texts beyond that are encoded each time.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        kept_tokens: int = _KEPT_TOKENS,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._room = kept_tokens
        self._texts: dict[tuple[str, bool], Ids] = {}  # (text, without special tokens?)
        self._pairs: dict[tuple[str, str], Ask] = {}
        first = tokenizer.bos_token_id
        self._prefix: int | None = tokenizer.eos_token_id if first is None else first
        self._prefix_text = "" if self._prefix is None else str(tokenizer.decode(self._prefix))

    def pair(self, context: str, continuation: str) -> Ask:
        """Encode a context with its continuation, cut from the left to the model's length.

        Raises:
            ItemError: The continuation has no tokens, or more than the model takes.
        """
        known = self._pairs.get((context, continuation))
        if known is not None:
            return known
        if context == "":
            before, ids = self._prefix_ids(), self._encode(continuation, bare=True)
            if len(ids) and ids[0] == before[0]:
                ids = ids[1:]
        else:
            before = self._encode(context.rstrip())  # a space belongs to the word behind it
            ids = self._encode(context + continuation, keep=False)[len(before) :]
        if not 0 < len(ids) <= self._max_length or not len(before):
            raise ItemError(
                f"the continuation {continuation!r} after {context[-40:]!r} has {len(ids)} tokens "
                f"after {len(before)}; it must have 1 to {self._max_length}, after at least 1"
            )
        over = len(before) + len(ids) - (self._max_length + 1)
        ask = Ask(before[max(over, 0) :], ids)
        if self._kept(len(ids)):
            self._pairs[context, continuation] = ask
        return ask

    def windows(self, text: str) -> list[Ask]:
        """Cut a text into windows that predict each token once, with one token of context.

        The first token follows the prefix token, a last short window has the longer past. A text
        without tokens has no windows.
        """
        ids, n = self._encode(text), self._max_length
        first = [Ask(self._prefix_ids(), ids[:n])] if len(ids) else []
        return first + [
            Ask(ids[min(start + n, len(ids)) - n - 1 : start], ids[start : start + n])
            for start in range(n, len(ids), n)
        ]

    def prompt(self, text: str, room: int) -> Ids:
        """Encode a prompt, cut from the left so that ``room`` more tokens fit.

        Raises:
            ItemError: Nothing is left of it.
        """
        if room >= self._max_length:
            raise ItemError(
                f"{room} tokens are to be generated, but the model takes {self._max_length} with "
                "the prompt; lower max_gen_toks"
            )
        first = self._tokenizer.bos_token
        ids = self._encode(text, bare=first is not None and text.startswith(str(first)))
        if len(ids) == 0:
            raise ItemError(f"the prompt {text!r} has no tokens; nothing can follow it")
        return ids[-(self._max_length - room) :]

    def _prefix_ids(self) -> Ids:
        if self._prefix is None:
            raise EvaluationError(
                "the tokenizer has neither a first nor a last token (bos_token, eos_token), so a "
                "text cannot be scored without a context"
            )
        return np.array([self._prefix], dtype=np.int32)

    def _encode(self, text: str, *, bare: bool | None = None, keep: bool = True) -> Ids:
        """Encode a text; one that starts with the prefix token gets no other in front."""
        if bare is None:
            bare = self._prefix is not None and text.startswith(self._prefix_text)
        known = self._texts.get((text, bare))
        if known is not None:
            return known
        more = {"add_special_tokens": False} if bare else {}
        ids = np.array(self._tokenizer.encode(text, **more), dtype=np.int32)
        if keep and self._kept(len(ids)):
            self._texts[text, bare] = ids
        return ids

    def _kept(self, n: int) -> bool:
        """Take ``n`` from the room that is left, if it is there."""
        fits = n <= self._room
        self._room -= n if fits else 0
        return fits


def by_context(asks: Sequence[Ask]) -> tuple[list[Ask], list[list[Ask]]]:
    """Gather asks by context, without twins; the order of asking is forgotten.

    Returns:
        For each of ``asks`` the twin that is kept, and those by context, both in the order of
        their tokens.
    """
    groups: dict[bytes, dict[bytes, Ask]] = defaultdict(dict)
    kept = [
        groups[ask.context.tobytes()].setdefault(ask.continuation.tobytes(), ask) for ask in asks
    ]
    return kept, [[ask for _, ask in sorted(found.items())] for _, found in sorted(groups.items())]


def longest_input(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens that a model takes, looked up as lm-eval does; 2048 where nothing says."""
    inner = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(inner, name, None) is not None:
            return int(getattr(inner, name))
    said = getattr(tokenizer, "model_max_length", None)
    return 2048 if said is None or said > 1e29 else int(said)  # 1e30 stands for "not said"

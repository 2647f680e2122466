"""Texts -> token ids, by lm-eval's rules and once; and which rows share a forward pass.

A row's padded length depends on the row alone, never on its neighbours. On a CPU in float32 this
is what makes scores the same bits in any block: attention and softmax round by the padded length,
while the rows of a matrix product do not depend on how many there are, from a few rows upwards
(``filled``). So with one thread; several cut the work at places that depend on all of it, and the
last bits of a log-likelihood may move (by 8e-6 nats with two).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]  # (n,)
Row = TypeVar("Row")
Answer = TypeVar("Answer")

_KEPT_TOKENS = 16_000_000  # 64 MB
_CPU_TOKENS = 8192  # in one pass: the products are large, and what they leave fits beside a model
_GPU_TOKENS = 131_072  # a first trial; halved until it fits


@dataclass(frozen=True)
class Ask:
    """A continuation to be scored after its context; both fit the model together."""

    context: Ids  # at least 1
    continuation: Ids  # at least 1


class TokenIds:
    """lm-eval's way to encode, with a memory: the same prompts come back with every candidate.

    Args:
        tokenizer: Asked for ids only.
        max_length: Of the model, in tokens.
        kept_tokens: How many token ids to remember; texts beyond that are encoded each time.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        kept_tokens: int = _KEPT_TOKENS,
    ) -> None:
        self._tokenizer = tokenizer
        self.max_length = max_length
        self._room = kept_tokens
        self._texts: dict[tuple[str, bool], Ids] = {}  # (text, without special tokens?)
        self._pairs: dict[tuple[str, str], Ask] = {}
        first = tokenizer.bos_token_id
        self._prefix: int | None = tokenizer.eos_token_id if first is None else first
        self._prefix_text = "" if self._prefix is None else str(tokenizer.decode(self._prefix))

    def pair(self, context: str, continuation: str) -> Ask:
        """Encode a context with its continuation, cut from the left to the model's length.

        Raises:
            EvaluationError: The continuation has no tokens, or more than the model takes.
        """
        key = (context, continuation)
        if key not in self._pairs:
            ask = self._pair(context, continuation)
            if not self._kept(len(ask.continuation)):
                return ask
            self._pairs[key] = ask
        return self._pairs[key]

    def windows(self, text: str) -> list[Ask]:
        """Cut a text into windows that predict each token once, with one token of context.

        The first token follows the prefix token. A text without tokens has no windows.
        """
        ids, n = self._encode(text), self.max_length
        starts = range(0, len(ids), n)
        before = [self._prefix_ids() if s == 0 else self._window_context(ids, s) for s in starts]
        return [Ask(b, ids[s : s + n]) for b, s in zip(before, starts, strict=True)]

    def prompt(self, text: str, room: int) -> Ids:
        """Encode a prompt, cut from the left so that ``room`` more tokens fit.

        Raises:
            EvaluationError: Nothing is left of it.
        """
        if room >= self.max_length:
            raise EvaluationError(
                f"{room} tokens are to be generated, but the model takes {self.max_length} with "
                "the prompt; lower max_gen_toks"
            )
        first = self._tokenizer.bos_token
        ids = self._remembered(text, bare=first is not None and text.startswith(str(first)))
        if len(ids) == 0:
            raise EvaluationError(f"the prompt {text!r} has no tokens; nothing can follow it")
        return ids[-(self.max_length - room) :]

    def _pair(self, context: str, continuation: str) -> Ask:
        if context == "":
            before, ids = self._prefix_ids(), self._encode(continuation, bare=True)
            if len(ids) and ids[0] == before[0]:
                ids = ids[1:]
        else:
            before = self._encode(context.rstrip())  # a space belongs to the word behind it
            ids = self._encode(context + continuation, keep=False)[len(before) :]
        if not 0 < len(ids) <= self.max_length or not len(before):
            raise EvaluationError(
                f"the continuation {continuation!r} after {context[-40:]!r} has {len(ids)} tokens "
                f"after {len(before)}; it must have 1 to {self.max_length}, after at least 1"
            )
        over = len(before) + len(ids) - (self.max_length + 1)
        return Ask(before[max(over, 0) :], ids)

    def _window_context(self, ids: Ids, start: int) -> Ids:
        """Return what stands before a later window; a last short one has the longer past."""
        end = min(start + self.max_length, len(ids))
        return ids[end - self.max_length - 1 : start]

    def _prefix_ids(self) -> Ids:
        if self._prefix is None:
            raise EvaluationError(
                "the tokenizer has neither a first nor a last token (bos_token, eos_token), so a "
                "text cannot be scored without a context"
            )
        return np.array([self._prefix], dtype=np.int32)

    def _encode(self, text: str, *, bare: bool = False, keep: bool = True) -> Ids:
        """Encode a text; one that starts with the prefix token gets no other in front."""
        if not bare and self._prefix is not None:
            bare = text.startswith(self._prefix_text)
        return self._remembered(text, bare, keep)

    def _remembered(self, text: str, bare: bool, keep: bool = True) -> Ids:
        key = (text, bare)
        if key in self._texts:
            return self._texts[key]
        more = {"add_special_tokens": False} if bare else {}
        ids = np.array(self._tokenizer.encode(text, **more), dtype=np.int32)
        if keep and self._kept(len(ids)):
            self._texts[key] = ids
        return ids

    def _kept(self, n: int) -> bool:
        """Take ``n`` from the room that is left, if it is there."""
        fits = n <= self._room
        self._room -= n if fits else 0
        return fits


class Budget:
    """How many tokens one forward pass may have: found once by trial, then remembered.

    Args:
        device: A CPU starts low, since it gains nothing from more; others high.
        most_rows: A limit on top, or ``None``.
    """

    def __init__(self, device: torch.device, most_rows: int | None) -> None:
        self.tokens = _CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS
        self._most_rows = most_rows

    def batches(
        self,
        rows: Sequence[Row],  # of one padded length
        length: int,  # tokens of one row, what it will grow by included
        step: Callable[[Sequence[Row]], Answer],
    ) -> Iterator[Answer]:
        """Yield ``step``'s answer for one batch after another; halve the batch where it must be.

        Raises:
            torch.OutOfMemoryError: One row alone is too much.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + self._rows(length)]
            try:
                answer = step(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.tokens = length * (len(part) // 2)
                torch.cuda.empty_cache()
                continue
            yield answer
            start += len(part)

    def _rows(self, length: int) -> int:
        fit = max(1, self.tokens // max(1, length))
        return fit if self._most_rows is None else min(fit, self._most_rows)


def padded(length: int) -> int:
    """Return what a context of ``length`` tokens is padded to, its last token not counted.

    By at least one token, so that every row has a mask: without one the attention kernel is
    another, and whether a batch has one must not depend on the neighbours. Half an octave wide,
    since all that grows is the cache: few lengths make full batches. 0 for a lone token.
    """
    n = length - 1
    step = max(32, 1 << max(0, n.bit_length() - 2)) if n >= 64 else 64
    return (n // step + 1) * step if n else 0


def widened(length: int) -> int:
    """Return what a continuation of ``length`` tokens is padded to: at most a half more."""
    step = 1 << max(0, (length - 1).bit_length() - 2)
    return -(-length // step) * step


def filled(rows: int, width: int = 1) -> int:
    """Return how many rows of ``width`` tokens to run where ``rows`` are wanted.

    Enough for a matrix product to give each row the same bits: 4 with one thread (MKL, AVX2).
    """
    threads = torch.get_num_threads()
    fewest = 4 if threads == 1 else min(32, 8 * threads)
    return max(rows, -(-fewest // width))


def longest_input(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens that a model takes, looked up as lm-eval does; 2048 where nothing says."""
    inner = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(inner, name, None) is not None:
            return int(getattr(inner, name))
    said = getattr(tokenizer, "model_max_length", None)
    return 2048 if said is None or said > 1e29 else int(said)  # 1e30 stands for "not said"

"""What the engines share: text -> tokens by lm-eval's rules, and answers that must be numbers."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evaluators.engines.encoding import Ask, TokenIds
from evaluators.log_control import hushed_logs
from evaluators.protocol import canonical
from evaluators.target import Target
from merge_core.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_GRADIENTS = "gradients need the engine hf, whose model is a live one; say `engine: {name: hf}`"
NO_CHOICE = "the logits of the next token are NaN or infinite, not finite"


class TokenEngine(ABC):
    """A ``protocol.Engine`` that scores token ids; built once, not per candidate.

    Args:
        tokenizer: Turns prompts into tokens.
        max_length: Tokens that prompt and answer may have.
        before: An engine with this tokenizer, whose encoded texts are taken over.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        before: TokenEngine | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        known = before is not None and before._max_length == max_length
        self._ids: TokenIds = before._ids if before and known else TokenIds(tokenizer, max_length)
        self._tokenizer_digest: str = before._tokenizer_digest if before else _digest(tokenizer)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per pair. See ``protocol.Engine.loglikelihood``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
            ItemError: A continuation has no tokens, or more than the model takes.
            EvaluationError: The engine failed.
        """
        with hushed_logs():
            answers = self._scored([self._ids.pair(*pair) for pair in pairs])
        for (context, continuation), (nats, _) in zip(pairs, answers, strict=True):
            if not math.isfinite(nats):
                raise NonFiniteError(
                    f"the log-likelihood of {continuation!r} after {context[-40:]!r} is {nats}; "
                    "it must be finite"
                )
        return answers

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Return the nats of each text. See ``protocol.Engine.loglikelihood_rolling``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
            EvaluationError: The engine failed.
        """
        with hushed_logs():
            windows = [self._ids.windows(text) for text in texts]
            flat = [window for group in windows for window in group]
            parts = iter(self._scored(flat, rolling=True))
        answers = [float(sum(next(parts)[0] for _ in group)) for group in windows]
        for text, nats in zip(texts, answers, strict=True):
            if not math.isfinite(nats):
                raise NonFiniteError(
                    f"the log-likelihood of the text {text[:40]!r} is {nats}; it must be finite"
                )
        return answers

    def losses(self, targets: Sequence[Target]) -> list[float]:
        """Return the loss of each target. See ``protocol.Engine.losses``.

        Raises:
            ParameterError: This engine has no gradients; the default.
        """
        raise ParameterError(_NO_GRADIENTS)

    def backward(self, targets: Sequence[Target], weights: Sequence[float]) -> list[float]:
        """Add the gradient of a weighted sum of losses. See ``protocol.Engine.backward``.

        Raises:
            ParameterError: This engine has no gradients; the default.
        """
        raise ParameterError(_NO_GRADIENTS)

    def fingerprint(self) -> str:
        """Return a JSON object: versions, dtype, device, batch size, and so on.

        It is the same in every run on one machine, where packages, model folder and settings are.
        """
        own = {
            "max_length": self._max_length,
            "tokenizer": self._tokenizer_digest,
            "tokenizers": version("tokenizers"),
        }
        return json.dumps({**own, **self._facts()}, sort_keys=True)

    @abstractmethod
    def _scored(self, asks: Sequence[Ask], *, rolling: bool = False) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per continuation; no finite nats where the logits are not."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Return what else could change an answer, as JSON values."""


def _digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what decides a text's token ids, and the text of an answer's ids.

    Padding is set anew at every call and left out.
    """
    facts: list[object] = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    facts += [type(tokenizer).__name__, getattr(tokenizer, "clean_up_tokenization_spaces", None)]
    core = getattr(tokenizer, "backend_tokenizer", None)  # absent in tokenizers written in Python
    if core is not None:
        rules = json.loads(core.to_str())
        facts.append({k: v for k, v in rules.items() if k not in ("padding", "truncation")})
    return hashlib.sha256(canonical(facts)).hexdigest()

"""HFLM with a memory for token ids and an eye for NaN; every answer is HFLM's. Heavy to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessor, LogitsProcessorList

from merge_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_KEPT_TOKENS = 4_000_000  # about 150 MB of Python integers


class LiveHFLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """HFLM on a model that is there already.

    Args:
        model: The live model.
        tokenizer: HFLM gives it a padding token.
        batch_size: Fixed.
        kept_tokens: How many token ids to remember; prompts beyond that are encoded each time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        kept_tokens: int = _KEPT_TOKENS,
    ) -> None:
        self._ids: dict[tuple[Any, ...], list[int]] = {}
        self._room = kept_tokens
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Encode a text, once: the same prompts come back with every candidate."""
        key = (string, add_special_tokens, left_truncate_len)
        if key in self._ids:
            return self._ids[key]
        ids: list[int] = super().tok_encode(
            string, add_special_tokens=add_special_tokens, left_truncate_len=left_truncate_len
        )
        if len(ids) <= self._room:
            self._ids[key] = ids
            self._room -= len(ids)
        return ids

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        watch = LogitsProcessorList([_RefuseNaN()])
        out: torch.Tensor = super()._model_generate(
            context, max_length, stop, logits_processor=watch, **settings
        )
        return out


class _RefuseNaN(LogitsProcessor):
    """Changes nothing; without it NaN weights generate token 0 and score as a wrong answer."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if not torch.isfinite(scores.amax(dim=-1)).all():  # NaN wins every max; -inf is a mask
            raise NonFiniteError("the logits of the next token are NaN or infinite, not finite")
        return scores

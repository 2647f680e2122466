"""The engine that runs the live transformers model itself, in place, through lm-eval's HFLM."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from evaluators.protocol import LiveModel, canonical
from evaluators.quiet import hushed, hushed_logs
from merge_core.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def live_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int
) -> LiveModel:
    """Join a model and its tokenizer to what evaluators take; make one per model and keep it.

    Args:
        model: On the device it is to run on. It is put into evaluation mode, and its tied weights
            are tied anew, once, here; weights written in place later are seen at once.
        tokenizer: Copied, since lm-eval gives it a padding token.
        batch_size: Prompts per forward pass, at least 1.

    Raises:
        ParameterError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    engine = HfEngine(model, copy.deepcopy(tokenizer), batch_size)
    return LiveModel(model, tokenizer, batch_size, engine)


class HfEngine:
    """See ``protocol.Engine``. Numbers equal plain HFLM's; it is built once, not per candidate."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        from evaluators.hflm import LiveHFLM

        self._model = model
        self._batch_size = batch_size
        self._tokenizer_digest = _digest(tokenizer)
        with hushed():
            self._lm = LiveHFLM(model, tokenizer, batch_size)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per pair. See ``protocol.Engine.loglikelihood``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
        """
        requests = [SimpleNamespace(args=pair) for pair in pairs]
        with hushed_logs():
            answers: list[tuple[float, bool]] = self._lm.loglikelihood(requests, disable_tqdm=True)
        for (context, continuation), (nats, _) in zip(pairs, answers, strict=True):
            if not math.isfinite(nats):
                raise NonFiniteError(
                    f"the log-likelihood of {continuation!r} after {context[-40:]!r} is {nats}; "
                    "it must be finite"
                )
        return answers

    def generate_until(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per prompt. See ``protocol.Engine.generate_until``.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN.
        """
        requests = [SimpleNamespace(args=(text, dict(how))) for text, how in prompts]
        with hushed_logs():
            answers: list[str] = self._lm.generate_until(requests, disable_tqdm=True)
        return answers

    def fingerprint(self) -> str:
        """Return a JSON object: versions, dtype, device, threads, batch size, and so on."""
        import torch
        import transformers

        generation = self._model.generation_config
        settings = generation.to_diff_dict() if generation else {}
        facts = {
            "engine": "hf",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._device(),
            "threads": torch.get_num_threads() if self._model.device.type == "cpu" else None,
            "attention": self._model.config._attn_implementation,
            "batch_size": self._batch_size,
            "max_length": self._lm.max_length,
            "tokenizer": self._tokenizer_digest,
            "generation": {k: v for k, v in settings.items() if k != "transformers_version"},
        }
        return json.dumps(facts, sort_keys=True)

    def _device(self) -> str:
        import torch

        device = self._model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what decides a text's token ids; padding is set anew at every call and left out."""
    facts: list[object] = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    core = getattr(tokenizer, "backend_tokenizer", None)  # absent in tokenizers written in Python
    if core is not None:
        rules = json.loads(core.to_str())
        facts.append({k: v for k, v in rules.items() if k not in ("padding", "truncation")})
    return hashlib.sha256(canonical(facts)).hexdigest()

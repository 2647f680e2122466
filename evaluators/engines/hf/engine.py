"""The engine that runs the live transformers model itself, in place.

Every answer is what plain lm-eval (HFLM) gives on the same model. Log-likelihoods may differ by
rounding, since HFLM pads and multiplies otherwise: in float32 by 4e-5 nats, or 5e-7 of the value
where that is more. In float32 on a CPU with one thread an answer does not depend, to the
last bit, on what else is asked for or in which order; with more threads, on accelerators, in
mixtures of experts and where HFLM itself does the work, rows may round each other otherwise,
within that tolerance (0.5 nats in bfloat16).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import transformers

from evaluators.engines.encoding import TokenIds, longest_input
from evaluators.engines.fingerprint import tokenizer_digest
from evaluators.engines.hf.batching import Budget
from evaluators.engines.hf.greedy import Generator
from evaluators.engines.hf.loglikelihood import loglikelihoods
from evaluators.engines.hf.prefix_forward import Forward
from evaluators.engines.nonfinite import check_pairs, check_texts
from evaluators.engines.stopping import Stopping, is_greedy, leaves_greedy
from evaluators.log_control import hushed, hushed_logs
from evaluators.protocol import LiveModel
from merge_core.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluators.engines.hf.fallback import LiveHFLM


def live_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int
) -> LiveModel:
    """Join a model and its tokenizer to what evaluators take; make one per model and keep it.

    Args:
        model: On the device it is to run on. It is put into evaluation mode, and its tied weights
            are tied anew, once, here; weights written in place later are seen at once.
        tokenizer: Copied, since encoding changes its settings.
        batch_size: The most prompts in a forward pass, at least 1; fewer where they are long.

    Raises:
        ParameterError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    engine = HfEngine(model, copy.deepcopy(tokenizer), batch_size)
    return LiveModel(model, tokenizer, batch_size, engine)


class HfEngine:
    """See ``protocol.Engine``. It is built once, not per candidate."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._tokenizer_digest = tokenizer_digest(tokenizer)
        self._max_length = longest_input(model.config, tokenizer)
        self._ids = TokenIds(tokenizer, self._max_length)
        self._budget = Budget(model.device, batch_size)
        self._forward = Forward(model, self._max_length)
        self._generator = Generator(
            self._forward, self._budget, self._ids, tokenizer, model.generation_config
        )
        self._hflm: LiveHFLM | None = None
        with hushed():
            model.eval()  # type: ignore[no-untyped-call]
            model.tie_weights()

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per pair. See ``protocol.Engine.loglikelihood``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
            ItemError: A continuation has no tokens, or more than the model takes.
        """
        asks = [self._ids.pair(*pair) for pair in pairs]
        with hushed_logs():
            if self._forward.works():
                answers = loglikelihoods(self._forward, self._budget, asks)
            else:
                answers = self._plain().loglikelihood(_requests(pairs), disable_tqdm=True)
        check_pairs(pairs, answers)
        return answers

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Return the nats of each text. See ``protocol.Engine.loglikelihood_rolling``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
        """
        with hushed_logs():
            if self._forward.works():
                windows = [self._ids.windows(text) for text in texts]
                flat = [window for group in windows for window in group]
                parts = iter(loglikelihoods(self._forward, self._budget, flat))
                answers = [float(sum(next(parts)[0] for _ in group)) for group in windows]
            else:
                with hushed():
                    found = self._plain().loglikelihood_rolling(_requests((t,) for t in texts))
                answers = [float(nats) for nats in found]
        check_texts(texts, answers)
        return answers

    def generate_until(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per prompt. See ``protocol.Engine.generate_until``.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN.
            ItemError: A prompt has no tokens, or no room is left for it.
        """
        greedy = all(is_greedy(how) for _, how in prompts)
        with hushed_logs():
            if greedy and leaves_greedy(self._model.generation_config) and self._forward.works():
                return self._generator.answers([(t, Stopping.of(how)) for t, how in prompts])
            requests = _requests((text, dict(how)) for text, how in prompts)
            answers: list[str] = self._plain().generate_until(requests, disable_tqdm=True)
        return answers

    def _plain(self) -> LiveHFLM:
        """Return lm-eval's own engine, for what ours does not do."""
        from evaluators.engines.hf.fallback import LiveHFLM

        if self._hflm is None:
            with hushed():
                tokenizer = copy.deepcopy(self._tokenizer)
                self._hflm = LiveHFLM(self._model, tokenizer, self._batch_size)
        return self._hflm

    def fingerprint(self) -> str:
        """Return a JSON object: versions, dtype, device, threads, batch size, and so on."""
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
            "max_length": self._max_length,
            "tokenizer": self._tokenizer_digest,
            "generation": {k: v for k, v in settings.items() if k != "transformers_version"},
        }
        return json.dumps(facts, sort_keys=True)

    def _device(self) -> str:
        device = self._model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _requests(arguments: Iterable[tuple[Any, ...]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=args) for args in arguments]

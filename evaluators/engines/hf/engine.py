"""The engine that runs the live transformers model itself, in place.

Every answer is what plain lm-eval (HFLM) gives on the same model. Log-likelihoods may differ by
rounding, since HFLM pads and multiplies otherwise: in float32 by 4e-5 nats, or 5e-7 of the value
where that is more. In float32 on a CPU with one thread an answer does not depend, to the
last bit, on what else is asked for or in which order; with more threads, on accelerators, in
mixtures of experts and where HFLM itself does the work, rows may round each other otherwise,
within that tolerance (0.5 nats in bfloat16). Where a model places tokens by the length of their
sequence (``longrope``), an answer is that of one pass over this sequence (``alone``); that of HFLM
depends on the batch.
"""

from __future__ import annotations

import copy
import functools
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers

from evaluators.engines.encoding import Ask, Ids, longest_input
from evaluators.engines.hf import alone
from evaluators.engines.hf.batching import Budget
from evaluators.engines.hf.greedy import greedy_answers
from evaluators.engines.hf.learning import Learning
from evaluators.engines.hf.loglikelihood import loglikelihoods
from evaluators.engines.hf.prefix_forward import Forward
from evaluators.engines.stopping import (
    Stopping,
    Watch,
    end_tokens,
    is_greedy,
    leaves_greedy,
    text_of,
)
from evaluators.engines.token_engine import TokenEngine
from evaluators.log_control import hushed, hushed_logs
from evaluators.protocol import LiveModel
from evaluators.target import Target
from merge_core.errors import EvaluationError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluators.engines.hf.fallback import LiveHFLM


def live_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    before: LiveModel | None = None,
) -> LiveModel:
    """Join a model and its tokenizer to what evaluators take; make one per model and keep it.

    Args:
        model: On the device it is to run on. It is put into evaluation mode, and its tied weights
            are tied anew, once, here; weights written in place later are seen at once.
        tokenizer: Copied, since encoding changes its settings.
        batch_size: The most prompts in a forward pass, at least 1; fewer where they are long.
        before: Of another model, with this tokenizer and never asked at the same time: its encoded
            texts and the memory for keys and values are used by both.

    Raises:
        ParameterError: ``batch_size`` is below 1.
        EvaluationError: The model is no causal language model.
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    _refuse_class(model)
    other = before.engine if before is not None else None
    engine = HfEngine(model, tokenizer, batch_size, other if isinstance(other, HfEngine) else None)
    return LiveModel(model, tokenizer, batch_size, engine)


def _refuse_class(model: PreTrainedModel) -> None:
    """Refuse what predicts no next token; what only looks ahead is seen by ``Forward.works``."""
    encoder = getattr(model.config, "is_encoder_decoder", False)
    if encoder or not model.can_generate():
        what = "reads with an encoder and writes with a decoder" if encoder else "writes no text"
        raise EvaluationError(
            f"{type(model).__name__} cannot be scored: expected a causal language model, got one "
            f"that {what}; search on models whose class ends in ForCausalLM"
        )


def _has_experts(model: PreTrainedModel) -> bool:
    """Return whether transformers chooses among ways to run a model's experts."""
    return bool(model._can_set_experts_implementation())


class HfEngine(TokenEngine):
    """See ``protocol.Engine``; the arguments are those of ``live_model``."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        before: HfEngine | None = None,
    ) -> None:
        own = before._tokenizer if before is not None else copy.deepcopy(tokenizer)
        super().__init__(own, longest_input(model.config, own), before)
        self._model = model
        self._batch_size = batch_size
        self._budget = Budget(model.device, batch_size)
        self._limit = alone.step_limit(model.config)
        places = self._max_length if self._limit is None else min(self._max_length, self._limit)
        self._forward: Forward = Forward(
            model, places, before._forward if before is not None else None
        )
        self._learning = Learning(
            model,
            self._ids,
            max_length=places,
            most_rows=batch_size,
            limit=self._limit,
            in_steps=self._forward.works,
        )
        self._ends = end_tokens(tokenizer, model.generation_config)
        with hushed():
            model.eval()  # type: ignore[no-untyped-call]
            model.tie_weights()

    def generate_until(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per prompt. See ``protocol.Engine.generate_until``.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN.
            ItemError: A prompt has no tokens, or no room is left for it.
        """
        greedy = all(is_greedy(how) for _, how in prompts)
        with hushed_logs():
            if greedy and leaves_greedy(self._model.generation_config) and self._forward.works():
                asked = [(text, Stopping.of(how)) for text, how in prompts]
                rows = [(self._ids.prompt(text, stop.most_tokens), stop) for text, stop in asked]
                return self._written(rows)
            return self._hflm.written(prompts)

    def losses(self, targets: Sequence[Target]) -> list[float]:
        """Return the loss of each target. See ``protocol.Engine.losses``.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            ItemError: A continuation has no tokens, or more than the model takes.
        """
        with hushed_logs():
            return self._learning.run(targets, None)

    def backward(self, targets: Sequence[Target], weights: Sequence[float]) -> list[float]:
        """Add the gradient of a weighted sum of losses. See ``protocol.Engine.backward``.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            ParameterError: The model is quantised, or there is not one finite weight per target.
            ItemError: A continuation has no tokens, or more than the model takes.
            EvaluationError: The memory is too small for one sequence.
        """
        with hushed_logs():
            return self._learning.run(targets, weights)

    def _written(self, rows: Sequence[tuple[Ids, Stopping]]) -> list[str]:
        """Write greedy answers to prompts; what may grow too long for steps, each alone."""
        steps = [
            i for i, (ids, stop) in enumerate(rows) if self._fits(len(ids) + stop.most_tokens - 1)
        ]
        texts = greedy_answers(
            self._forward, self._budget, self._tokenizer, self._ends, [rows[i] for i in steps]
        )
        found = dict(zip(steps, texts, strict=True))
        for i, (ids, stop) in enumerate(rows):
            if i not in found:
                watch = Watch(self._tokenizer, stop.watched, self._ends)
                written = alone.answer(self._model, ids, watch, stop.most_tokens, self._limit or 0)
                found[i] = text_of(self._tokenizer, written, stop)
        return [found[i] for i in range(len(rows))]

    def _fits(self, tokens: int) -> bool:
        """Tell whether so many tokens of a sequence may be read in steps."""
        return self._limit is None or tokens <= self._limit

    def _scored(self, asks: Sequence[Ask], *, rolling: bool = False) -> list[tuple[float, bool]]:
        if not self._forward.works():
            if self._limit is not None:
                return alone.loglikelihoods(self._model, asks)
            return self._hflm.scored(asks, self._batch_size if rolling else len(asks))
        steps = [i for i, ask in enumerate(asks) if self._fits(alone.length(ask))]
        rest = [i for i, ask in enumerate(asks) if not self._fits(alone.length(ask))]
        found = loglikelihoods(self._forward, self._budget, [asks[i] for i in steps])
        found += alone.loglikelihoods(self._model, [asks[i] for i in rest])
        by_place = dict(zip([*steps, *rest], found, strict=True))
        return [by_place[i] for i in range(len(asks))]

    @functools.cached_property
    def _hflm(self) -> LiveHFLM:
        """lm-eval's own engine, for what ours does not do."""
        from evaluators.engines.hf.fallback import LiveHFLM

        with hushed():
            return LiveHFLM(
                pretrained=self._model,
                tokenizer=copy.deepcopy(self._tokenizer),  # it gets a padding token
                batch_size=self._batch_size,
            )

    def _facts(self) -> dict[str, Any]:
        device, generation = self._model.device, self._model.generation_config
        settings = generation.to_diff_dict() if generation else {}
        cuda, config = device.type == "cuda", self._model.config
        machine = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
        return {
            "engine": "hf",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(device) if cuda else device.type,
            "cuda": torch.version.cuda if cuda else None,
            "processor": machine if device.type == "cpu" else None,  # decides its kernels
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "products": torch.get_float32_matmul_precision(),
            "attention": config._attn_implementation,
            "experts": config._experts_implementation if _has_experts(self._model) else None,
            "batch_size": self._batch_size,
            "generation": {k: v for k, v in settings.items() if k != "transformers_version"},
        }

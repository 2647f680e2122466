"""The engine that keeps one vLLM running; candidates replace its weights in memory.

Tokens, cuts, stop strings and end tokens are those of ``hf``, so answers are what plain lm-eval
gives, but for rounding: vLLM multiplies otherwise. In float32 on a CPU log-likelihoods differ from
lm-eval's by up to 2e-4 nats or 5e-6 of the value, so an answer can differ where two tokens or two
choices are as near as that. What else is asked for may move the last bits too, within this.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.engines.encoding import Ask, by_context, longest_input
from evaluators.engines.stopping import Stopping, end_tokens, text_of
from evaluators.engines.token_engine import NO_CHOICE, TokenEngine
from evaluators.engines.vllm.process import RunningVllm, VllmOptions, check_installed
from evaluators.engines.vllm.sampling_params import of_model, of_task
from evaluators.log_control import hushed_logs
from evaluators.protocol import canonical
from merge_core.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WRITING = {
    "logprobs": 0,  # of the chosen token: NaN logits show there
    "skip_special_tokens": False,  # a stop string may be one
}


class VllmEngine(TokenEngine):
    """See ``protocol.Engine``. It is started once, not per candidate.

    Starting it sets some of vLLM's environment variables in this process, and on a CPU vLLM binds
    torch's threads to cores.

    Args:
        folder: Config, tokenizer and generation settings of the model, and weights if ``weights``.
        shell: The same model of transformers, asked for config, type and generation settings only.
        tokenizer: Turns prompts into tokens.
        options: What the user said.
        weights: Start with the folder's weights; without them answers mean nothing before ``take``.

    Raises:
        ParameterError: vLLM is not installed, or an option or a setting of the model is refused.
        EvaluationError: vLLM cannot start.
    """

    def __init__(
        self,
        folder: Path,
        shell: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        options: VllmOptions,
        *,
        weights: bool = False,
    ) -> None:
        check_installed()
        longest = longest_input(shell.config, tokenizer)
        if not 2 <= (options.max_model_len or longest) <= longest:
            raise ParameterError(
                f"max_model_len must be 2 to {longest}, what the model takes, "
                f"got {options.max_model_len}"
            )
        super().__init__(tokenizer, options.max_model_len or longest)
        self._settings = of_model(shell.generation_config)
        self._ends = end_tokens(tokenizer, shell.generation_config)
        dtype = str(shell.dtype).removeprefix("torch.")
        self._vllm = RunningVllm(folder, dtype, self._max_length, options, weights=weights)
        self._about = {
            **self._vllm.facts(),
            "engine": "vllm",
            "torch": version("torch"),
            "transformers": version("transformers"),
            "dtype": dtype,
            "batch_size": options.batch_size,
            "tensor_parallel_size": options.tensor_parallel_size,
            "generation": self._settings,
        }

    @property
    def broken(self) -> bool:
        """Whether vLLM has failed: another engine must be made."""
        return self._vllm.broken

    def take(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        """Replace all weights. See ``RunningVllm.take``.

        Raises:
            EvaluationError: vLLM could not load them; the engine is ``broken``.
        """
        self._vllm.take(tensors)

    def close(self) -> None:
        """End the engine and give its memory back; it cannot be used again."""
        self._vllm.close()

    def generate_until(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per prompt. See ``protocol.Engine.generate_until``.

        What is sampled depends on the prompt, the settings, and how often both came before in
        this call; nothing else.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN.
            EvaluationError: A prompt has no tokens, no room is left for it, or a setting is not
                known; vLLM fails.
        """
        twins: Counter[bytes] = Counter()
        asked: dict[bytes, tuple[list[int], dict[str, Any]]] = {}
        ends: dict[bytes, Stopping] = {}
        keys = []
        for text, how in prompts:
            stop, more = Stopping.of(how), of_task(how, self._settings)
            with hushed_logs():
                ids = self._ids.prompt(text, stop.most_tokens).tolist()
            strings = [*filter(None, stop.watched)]
            settings = {**more, "max_tokens": stop.most_tokens, "stop": strings}
            key = canonical([ids, settings, *([asdict(stop)] if stop.thinks else [])])
            if more["temperature"]:
                twins[key] += 1
                key = hashlib.sha256(key + str(twins[key]).encode()).digest()
                settings["seed"] = int.from_bytes(key[:4], "big")
            asked[key], ends[key] = (ids, settings), stop
            keys.append(key)
        order = sorted(asked)
        how_all = [
            {**asked[key][1], **_WRITING, "stop_token_ids": sorted(self._ends)} for key in order
        ]
        found = self._vllm.answers([asked[key][0] for key in order], how_all)
        if self._clear_if_spoilt([out.outputs[0].cumulative_logprob for out in found]):
            raise NonFiniteError(NO_CHOICE)
        answers = {
            key: text_of(self._tokenizer, list(out.outputs[0].token_ids), ends[key])
            for key, out in zip(order, found, strict=True)
        }
        return [answers[key] for key in keys]

    def _scored(self, asks: Sequence[Ask], *, rolling: bool = False) -> list[tuple[float, bool]]:
        """Score continuations; twins once, in the order of their tokens, so that prefixes meet."""
        kept, groups = by_context(asks)
        rows = [ask for group in groups for ask in group]
        prompts = [[*row.context.tolist(), *row.continuation[:-1].tolist()] for row in rows]
        found = self._vllm.answers(prompts, [_scoring(row) for row in rows])
        answers = {row: _read_off(row, out) for row, out in zip(rows, found, strict=True)}
        self._clear_if_spoilt([nats for nats, _ in answers.values()])
        return [answers[ask] for ask in kept]

    def _clear_if_spoilt(self, nats: Sequence[float]) -> bool:
        """Let no NaN of one candidate stay in memory that the next one reads."""
        spoilt = not all(map(math.isfinite, nats))
        if spoilt:
            self._vllm.clear()
        return spoilt

    def _facts(self) -> dict[str, Any]:
        return self._about


def _scoring(ask: Ask) -> dict[str, Any]:
    """Return how to ask for a continuation: its last token is not read, but looked up."""
    return {
        "temperature": 0.0,
        "max_tokens": 1,
        "logprob_token_ids": [int(ask.continuation[-1])],
        "prompt_logprobs": 1 if len(ask.continuation) > 1 else None,
        "ignore_eos": True,
        "detokenize": False,
    }


def _read_off(ask: Ask, out: Any) -> tuple[float, bool]:
    """Add up the tokens of a continuation: in the prompt all but the last, which comes after it."""
    last, answer = int(ask.continuation[-1]), out.outputs[0]
    nats, greedy = [answer.logprobs[0][last].logprob], answer.token_ids[0] == last
    start = len(ask.context)
    for place, token in enumerate(ask.continuation[:-1].tolist(), start):
        told = out.prompt_logprobs[place]
        nats.append(told[token].logprob)
        best = max(told, key=lambda t, told=told: (told[t].logprob, -t))  # type: ignore[misc]
        greedy = greedy and best == token
    return float(np.sum(nats)), bool(greedy)

"""The engine that keeps one vLLM running; candidates replace its weights in memory.

Tokens, cuts, stop strings and end tokens are those of ``hf``, so answers are what plain lm-eval
gives, but for rounding: vLLM multiplies otherwise. In float32 on a CPU log-likelihoods differ from
lm-eval's by up to 2e-4 nats or 5e-6 of the value, so an answer can differ where two tokens or two
choices are as near as that. What else is asked for may move the last bits too, within this.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.engines.encoding import Ask, TokenIds, longest_input
from evaluators.engines.fingerprint import tokenizer_digest
from evaluators.engines.nonfinite import check_choices, check_pairs, check_texts
from evaluators.engines.stopping import Stopping, end_tokens, text_of
from evaluators.engines.vllm.process import RunningVllm, VllmOptions, check_installed
from evaluators.engines.vllm.sampling_params import of_model, of_task
from evaluators.log_control import hushed_logs
from evaluators.protocol import canonical
from merge_core.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class VllmEngine:
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
        self._max_length = options.max_model_len or longest
        self._options = options
        self._tokenizer = tokenizer
        self._ids = TokenIds(tokenizer, self._max_length)
        self._settings = of_model(shell.generation_config)
        self._ends = end_tokens(tokenizer, shell.generation_config)
        self._dtype = str(shell.dtype).removeprefix("torch.")
        self._vllm = RunningVllm(folder, self._dtype, self._max_length, options, weights=weights)
        self._about = {
            **self._vllm.facts(),
            "engine": "vllm",
            "torch": version("torch"),
            "transformers": version("transformers"),
            "dtype": self._dtype,
            "batch_size": options.batch_size,
            "tensor_parallel_size": options.tensor_parallel_size,
            "max_length": self._max_length,
            "tokenizer": tokenizer_digest(tokenizer),
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

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per pair. See ``protocol.Engine.loglikelihood``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
            EvaluationError: A continuation has no tokens, or more than the model takes; vLLM fails.
        """
        with hushed_logs():
            asks = [self._ids.pair(*pair) for pair in pairs]
        answers = self._scored(asks)
        with self._cleared_if_spoilt():
            check_pairs(pairs, answers)
        return answers

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Return the nats of each text. See ``protocol.Engine.loglikelihood_rolling``.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
            EvaluationError: vLLM fails.
        """
        with hushed_logs():
            windows = [self._ids.windows(text) for text in texts]
        parts = iter(self._scored([window for group in windows for window in group]))
        answers = [float(sum(next(parts)[0] for _ in group)) for group in windows]
        with self._cleared_if_spoilt():
            check_texts(texts, answers)
        return answers

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
        asked: dict[bytes, tuple[list[int], dict[str, Any], list[int]]] = {}
        for place, (text, how) in enumerate(prompts):
            stop, more = Stopping.of(how), of_task(how, self._settings)
            with hushed_logs():
                ids = self._ids.prompt(text, stop.most_tokens).tolist()
            strings = [*filter(None, stop.strings)]
            settings = {**more, "max_tokens": stop.most_tokens, "stop": strings}
            key = canonical([ids, settings])
            if more["temperature"]:
                twins[key] += 1
                key = hashlib.sha256(key + str(twins[key]).encode()).digest()
                settings["seed"] = int.from_bytes(key[:4], "big")
            asked.setdefault(key, (ids, settings, []))[2].append(place)
        rows = [asked[key] for key in sorted(asked)]
        how_all = [self._writing(settings) for _, settings, _ in rows]
        found = self._vllm.answers([ids for ids, _, _ in rows], how_all)
        with self._cleared_if_spoilt():
            check_choices([out.outputs[0].cumulative_logprob for out in found])
        answers = [""] * len(prompts)
        for (_, settings, places), out in zip(rows, found, strict=True):
            written = text_of(self._tokenizer, list(out.outputs[0].token_ids), settings["stop"])
            for place in places:
                answers[place] = written
        return answers

    def fingerprint(self) -> str:
        """Return a JSON object: versions, dtype, device, batch size, and so on."""
        return json.dumps(self._about, sort_keys=True)

    def _writing(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **settings,
            "stop_token_ids": sorted(self._ends),
            "logprobs": 0,  # of the chosen token: NaN logits show there
            "skip_special_tokens": False,  # a stop string may be one
        }

    def _scored(self, asks: Sequence[Ask]) -> list[tuple[float, bool]]:
        """Score continuations; twins once, in the order of their tokens, so that prefixes meet."""
        twins: dict[tuple[bytes, bytes], list[int]] = {}
        for place, ask in enumerate(asks):
            key = (ask.context.tobytes(), ask.continuation.tobytes())
            twins.setdefault(key, []).append(place)
        places = [twins[key] for key in sorted(twins)]
        rows = [asks[same[0]] for same in places]
        prompts = [[*row.context.tolist(), *row.continuation[:-1].tolist()] for row in rows]
        found = self._vllm.answers(prompts, [_scoring(row) for row in rows])
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(asks)
        for row, same, out in zip(rows, places, found, strict=True):
            answer = _read_off(row, out)
            for place in same:
                answers[place] = answer
        return answers

    @contextmanager
    def _cleared_if_spoilt(self) -> Iterator[None]:
        """Let no NaN of one candidate stay in memory that the next one reads."""
        try:
            yield
        except NonFiniteError:
            self._vllm.clear()
            raise


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

"""lm-eval's own HFLM on the live model, for what is not read in steps; every answer is HFLM's.

That is: models whose cache does not give what a plain forward pass gives (``Forward.works``), and
generation that is more than greedy choice, such as beams or a repetition penalty. Heavy to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessor, LogitsProcessorList

from evaluators.engines.encoding import Ask
from evaluators.engines.stopping import THINK_END, Stopping
from evaluators.engines.token_engine import NO_CHOICE
from merge_core.errors import NonFiniteError


class LiveHFLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """HFLM with an eye for NaN."""

    def scored(self, asks: Sequence[Ask], run: int) -> list[tuple[float, bool]]:
        """Return ``(nats, greedy)`` per continuation; HFLM sorts ``run`` of them at a time."""
        tokens = [(None, ask.context.tolist(), ask.continuation.tolist()) for ask in asks]
        answers: list[tuple[float, bool]] = []
        for start in range(0, len(asks), max(run, 1)):
            answers += self._loglikelihood_tokens(tokens[start : start + run], disable_tqdm=True)
        return answers

    def written(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per prompt, as ``HFLM.generate_until``.

        Where there are thoughts no stop string ends a generation: see ``evaluators.thinking``.
        """
        stops = [Stopping.of(how) for _, how in prompts]
        found: dict[int, str] = {}
        for token in dict.fromkeys(stop.token for stop in stops):
            some = [i for i, stop in enumerate(stops) if stop.token == token]
            self.think_end_token = None if token < 0 else token
            asked = [_request(*prompts[i], stops[i]) for i in some]
            texts = self.generate_until(asked, disable_tqdm=True)
            found |= zip(some, texts, strict=True)
        return [stop.cut(found[i]) for i, stop in enumerate(stops)]

    def _model_generate(self, *args: Any, **settings: Any) -> torch.Tensor:
        watch = LogitsProcessorList([_RefuseNaN()])
        out: torch.Tensor = super()._model_generate(*args, logits_processor=watch, **settings)
        return out


def _request(text: str, how: Mapping[str, Any], stop: Stopping) -> SimpleNamespace:
    told = {key: value for key, value in how.items() if key != THINK_END}
    return SimpleNamespace(args=(text, {**told, "until": []} if stop.thinks else told))


class _RefuseNaN(LogitsProcessor):
    """Changes nothing; without it NaN weights generate token 0 and score as a wrong answer."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if not torch.isfinite(scores.amax(dim=-1)).all():  # NaN wins every max; -inf is a mask
            raise NonFiniteError(NO_CHOICE)
        return scores

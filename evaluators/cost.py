"""What a candidate costs, beside what it can do: parameters, bytes, tokens per second.

    evaluator: cost
    metric: parameters           # or bytes, or tokens_per_second

A cost is a number of the whole model, not of an item; but each pool of a study needs an item of its
own, so the number is there ``repeats`` times, under other ids. ``tokens_per_second`` is measured at
every item anew: it depends on the machine and its other load and is *not* repeatable. It is the
one exception to the law that the same positions give the same bits, and marked as such
(``measured``, and the unit): who compares scores, such as ``mergetune reproduce``, leaves it out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from evaluators.protocol import Evaluator, LiveModel, ScoreVector, TaskFacts, items_of
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from merge_core.errors import NoPromptsError
from merge_core.validation import StrictModel

_PROMPT = "Once upon a time"
_WARM_UP = 4  # tokens written before the first measurement


class CostOptions(StrictModel):
    """The keys of a score entry with ``evaluator: cost``."""

    metric: Literal["parameters", "bytes", "tokens_per_second"] = Field(description="what to count")
    repeats: int = Field(3, ge=1, description="items; every pool needs one")
    max_tokens: int = Field(64, ge=1, description="tokens that each prompt of a batch may bring")


class Cost(Evaluator):
    """See the module, and ``protocol.Evaluator``."""

    def __init__(self, options: CostOptions) -> None:
        self._options = options
        task = f"cost_{options.metric}"
        speed = options.metric == "tokens_per_second"
        super().__init__(
            TaskFacts(
                task=task,
                unit="tokens/s, measured" if speed else options.metric,
                higher_is_better=speed,
                items=items_of(task, range(options.repeats)),
                measured=speed,
            )
        )

    def fingerprint(self) -> str:
        """Return a JSON object: the metric, and for a speed how it is measured."""
        facts: dict[str, Any] = {"evaluator": "cost", "metric": self._options.metric}
        if self.measured:
            facts |= {"measured": True, "prompt": _PROMPT, "max_tokens": self._options.max_tokens}
        return json.dumps(facts, sort_keys=True)

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; a speed is other bits each time.

        A model that writes nothing at all has no speed: nan.
        """
        self.check_positions(which)
        self.failures = {}
        if not which:
            return np.empty(0, dtype=np.float64)
        model.engine.loglikelihood([(_PROMPT, ".")])  # a model that answers NaN costs nothing
        if self.measured:
            _written(model, _WARM_UP)
            return np.array([self._speed(model, i) for i in which], dtype=np.float64)
        return np.full(len(which), _size(model, self._options.metric), dtype=np.float64)

    def targets(self, which: Sequence[int]) -> list[Target]:
        """There are none. See ``protocol.Evaluator.targets``.

        Raises:
            NoTargetsError: Always.
        """
        raise self.no_targets("a cost is a number of the model, whatever it answers")

    def prompts(self, which: Sequence[int]) -> list[str]:
        """There are none. See ``protocol.Evaluator.prompts``.

        Raises:
            NoPromptsError: Always.
        """
        raise NoPromptsError(
            f"{self.task} has no prompts: a cost is a number of the model, whatever it reads"
        )

    def _speed(self, model: LiveModel, i: int) -> float:
        start = time.perf_counter()
        texts = _written(model, self._options.max_tokens)
        seconds = time.perf_counter() - start
        ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
        tokens = sum(map(len, ids))
        if not tokens:
            self.failures[self.items[i].id] = f"the model writes nothing after {_PROMPT!r}"
            return np.nan
        return tokens / seconds


def _written(model: LiveModel, tokens: int) -> list[str]:
    """Return what the model writes in one batch, as many prompts as a batch holds."""
    how = {"until": [], "max_gen_toks": tokens, "do_sample": False}
    return model.engine.generate_until([(_PROMPT, how)] * model.batch_size)


def _size(model: LiveModel, metric: str) -> int:
    """Count each parameter once, tied ones too."""
    parameters = model.model.parameters()
    return sum(p.numel() * (p.element_size() if metric == "bytes" else 1) for p in parameters)


EVALUATOR = EvaluatorPlugin(
    name="cost",
    meaning="the candidate's parameters, bytes or speed, for trade-offs",
    options=CostOptions,
    open=lambda options, folder, tokenizer: Cost(options),  # nothing is read
)

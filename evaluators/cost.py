"""What a candidate costs, beside what it can do: its size, what it computes, how fast it is.

    evaluator: cost
    metric: parameters           # numbers in its folder; tied ones once, a repeated layer each time
            bytes                # of these
            unique_bytes         # of memory, where layers that are the same share it
            layers               # how deep it is
            flops_per_token      # 2 for each weight of the matrices that a token meets
            tokens_per_second    # measured

A token meets a repeated layer each time, of routed experts those that it is sent to, the head, and
nothing of the embedding. What attention computes between tokens grows with the context and is left
out, as in the count by Kaplan et al., arXiv:2001.08361, section 2.1 (2 N, there without the head).

With other scores beside it in one mean, ``divide_by`` gives it their size.

A cost is a number of the whole model, not of an item; but each pool of a study needs an item of its
own, so the number is there ``repeats`` times, under other ids. What is counted is ``exact``: it has
no sampling error, however few items there are. ``tokens_per_second`` is measured at every item
anew: two of them in a pool say how much it varies. It depends on the machine and its other load and
is *not* repeatable. It is the one exception to the law that the same positions give the same bits,
and marked as such (``measured``, and the unit): who compares scores, such as ``mergetune
reproduce``, leaves it out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from evaluators.answer import Answer
from evaluators.protocol import Evaluator, LiveModel, ScoreVector, TaskFacts, items_of
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from merge_core.errors import EvaluationError, NoPromptsError
from merge_core.validation import StrictModel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_PROMPT = "Once upon a time"
_UNITS = {
    "tokens_per_second": "tokens/s, measured",
    "unique_bytes": "bytes",
    "flops_per_token": "flops/token",
}
_WARM_UP = 4  # tokens written before the first measurement
_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts")


class CostOptions(StrictModel):
    """The keys of a score entry with ``evaluator: cost``."""

    metric: Literal[
        "parameters", "bytes", "unique_bytes", "layers", "flops_per_token", "tokens_per_second"
    ] = Field(description="what to count")
    divide_by: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="what counts as 1, such as a parent's cost"
    )
    repeats: int | None = Field(
        None, ge=1, description="items: one for each pool, of a speed two; 3, of a speed 6"
    )
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
                unit=_unit(options),
                higher_is_better=speed,
                items=items_of(task, range(options.repeats or (6 if speed else 3))),
                measured=speed,
                exact=not speed,
            )
        )

    def fingerprint(self) -> str:
        """Return a JSON object: the metric, and for a speed how it is measured."""
        facts: dict[str, Any] = {"evaluator": "cost", "metric": self._options.metric}
        if self._options.divide_by != 1:
            facts["divide_by"] = self._options.divide_by
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
            speeds = [self._speed(model, i) for i in which]
            return np.array(speeds, dtype=np.float64) / self._options.divide_by
        size = _size(model, self._options.metric) / self._options.divide_by
        return np.full(len(which), size, dtype=np.float64)

    def answers(self, model: LiveModel, which: Sequence[int]) -> list[Answer]:
        """There are none. See ``protocol.Evaluator.answers``.

        Raises:
            NoAnswersError: Always.
        """
        raise self.no_answers("a cost is a number of the model, whatever it answers")

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


def _unit(options: CostOptions) -> str:
    unit = _UNITS.get(options.metric, options.metric)
    return unit if options.divide_by == 1 else f"{options.divide_by:g} {unit}"


def _written(model: LiveModel, tokens: int) -> list[str]:
    """Return what the model writes in one batch, as many prompts as a batch holds."""
    how = {"until": [], "max_gen_toks": tokens, "do_sample": False}
    return model.engine.generate_until([(_PROMPT, how)] * model.batch_size)


def _size(model: LiveModel, metric: str) -> int:
    live = model.model
    if metric == "layers":
        return int(live.config.get_text_config().num_hidden_layers)
    if metric == "flops_per_token":
        return flops_per_token(live)
    if metric == "unique_bytes":
        return sum({_memory(p): p.numel() * p.element_size() for p in live.parameters()}.values())
    return sum(
        p.numel() * (p.element_size() if metric == "bytes" else 1) for p in live.parameters()
    )


def _memory(parameter: Tensor) -> object:
    """Return what is the same for parameters that are the same memory."""
    return id(parameter) if parameter.is_meta else (parameter.data_ptr(), parameter.shape)


def flops_per_token(model: PreTrainedModel) -> int:
    """Return twice the multiply-adds of one token with the matrices that it meets.

    Raises:
        EvaluationError: Experts are routed, and nothing says to how many a token goes.
    """
    import torch

    total = 0
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, torch.nn.Embedding):
            continue
        met, of = _routed(model, name)
        axes = 3 if name.endswith(".experts") else 2  # all experts' matrices, and their vectors
        for weight in module.parameters(recurse=False):
            if weight.ndim >= axes:
                total += 2 * weight.numel() * met // of
    return total


def _routed(model: PreTrainedModel, name: str) -> tuple[int, int]:
    """Return to how many experts a token goes, and of how many, for weights of a module."""
    words = name.split(".")
    if "experts" not in words:
        return 1, 1
    experts = model.get_submodule(".".join(words[: words.index("experts") + 1]))
    stacked = [weight.shape[0] for weight in experts.parameters(recurse=False)]
    count = stacked[0] if stacked else len([*experts.children()])
    config = model.config.get_text_config()
    told = [getattr(config, key, None) for key in _ACTIVE]
    met = next((number for number in told if isinstance(number, int)), None)
    if met is None:
        raise EvaluationError(
            f"{type(model).__name__}: flops_per_token: expected one of {', '.join(_ACTIVE)} in its "
            f"config, got none, so nobody knows how many of {count} experts a token meets"
        )
    return met, count


EVALUATOR = EvaluatorPlugin(
    name="cost",
    meaning="the candidate's size, depth, compute or speed, for trade-offs",
    options=CostOptions,
    open=lambda options, folder, tokenizer: Cost(options),  # nothing is read
)

"""lm-eval tasks, item by item: prompts, filters and metrics are lm-eval's; nothing is done twice.

Not used, on purpose: ``evaluate`` (it averages, and rebuilds every prompt), ``samples=``, the
request cache and the response cache (each gives wrong numbers without a word when weights or
subsets change), bootstrap.

What is guaranteed: an item's value is what ``lm_eval.simple_evaluate`` gives with the same model
and seed, within the rounding that ``evaluators.hf`` states; a score of right or wrong differs only
where two answers are that close. The same block gives the same bits in whatever order it is asked
for, and in float32 on a CPU with one thread so does every other block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import numbers
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.lm_eval_requests import ANSWERABLE, Prepared, prepare
from evaluators.protocol import Item, LiveModel, ScoreVector, canonical, items_of
from evaluators.registry import EvaluatorPlugin, option
from merge_core.errors import (
    EvaluationError,
    MergeError,
    NonFiniteError,
    UnknownNameError,
    hint,
)

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class LmEvalOptions:
    """The keys of a score entry with ``evaluator: lm_eval``."""

    task: str = option("text", "name of one lm-eval task")
    include_path: str | None = option(
        "a folder", "task files of your own, relative to the study file", default=None
    )
    metric: str | None = option("text", "which of the task's metrics; its first", default=None)
    filter: str | None = option("text", "which of the task's filters; its first", default=None)
    num_fewshot: int | None = option(
        "a whole number", "examples in a prompt; what the task says, or 0", default=None, low=0
    )
    apply_chat_template: bool = option(
        "true or false", "put prompts in the tokenizer's chat template", default=False
    )
    seed: int = option("a whole number", "seed of the few-shot draw", default=1234, low=0)


class LmEvalTask:
    """One lm-eval task with one metric and one filter. See ``protocol.Evaluator``.

    Args:
        options: What the study file says.
        include_path: The folder that ``options.include_path`` means.
        tokenizer: Asked only for its chat template.

    Raises:
        UnknownNameError: The task, metric or filter does not exist.
        EvaluationError: The task cannot be loaded, or cannot be scored item by item.
    """

    def __init__(
        self,
        options: LmEvalOptions,
        include_path: Path | None,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        chat = tokenizer if options.apply_chat_template else None
        self._prepared: Prepared = prepare(
            options.task, include_path, options.num_fewshot, options.seed, chat
        )
        task = self._prepared.task
        self.task = options.task
        self.unit = _chosen("metric", options.metric, list(task.aggregation()), options.task)
        _refuse_unless_mean(task.aggregation()[self.unit], self.unit, options.task)
        self.higher_is_better = bool(task.higher_is_better()[self.unit])
        filters = {f.name: f for f in task._filters}
        self._filter = filters[_chosen("filter", options.filter, list(filters), options.task)]
        self.items: tuple[Item, ...] = items_of(
            options.task, [requests[0].doc for requests in self._prepared.requests]
        )
        self._fingerprint = _fingerprint(options, self.unit, self._filter.name, self._prepared)

    def fingerprint(self) -> str:
        """Return a JSON object: versions, choices, and hashes of requests, targets and settings."""
        return self._fingerprint

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; no item is ever nan."""
        outside = [i for i in which if not 0 <= i < len(self.items)]
        if outside:
            raise IndexError(f"{self.task} has {len(self.items)} items, got positions {outside}")
        # Fresh copies: an Instance collects its answers, and `which` may repeat an item.
        asked = [[_blank(r) for r in self._prepared.requests[i]] for i in which]
        try:
            self._answer([r for requests in asked for r in requests], model)
            values = [self._value(requests) for requests in asked]
        except MergeError:
            raise
        except Exception as error:
            raise EvaluationError(f"{self.task}: {type(error).__name__}: {error}") from error
        return np.array(values, dtype=np.float64)

    def _answer(self, requests: list[Instance], model: LiveModel) -> None:
        for kind in ANSWERABLE:
            some = [r for r in requests if r.request_type == kind for _ in range(r.repeats)]
            if some:
                answers = getattr(model.engine, kind)([r.args for r in some])
                for request, answer in zip(some, answers, strict=True):
                    request.resps.append(answer)
        if requests:
            self._filter.apply(requests)

    def _value(self, requests: list[Instance]) -> float:
        answers = [r.filtered_resps[self._filter.name] for r in requests]
        metrics = self._prepared.task.process_results(requests[0].doc, answers)
        value = metrics.get(self.unit)
        if not isinstance(value, (numbers.Real, np.bool_)):
            raise EvaluationError(
                f"{self.task}: metric {self.unit!r} should be a number for every item, "
                f"got {value!r}; the task gives {', '.join(metrics) or 'nothing'}"
            )
        score = float(value)
        if not math.isfinite(score):
            raise NonFiniteError(f"{self.task}: metric {self.unit!r} of an item is {score}")
        return score


def open_task(
    options: LmEvalOptions, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> LmEvalTask:
    """Prepare the task that a score entry names; relative paths start from ``folder``.

    Raises:
        UnknownNameError: The task, metric or filter does not exist.
        EvaluationError: The task cannot be loaded, or cannot be scored item by item.
    """
    include_path = folder / options.include_path if options.include_path else None
    return LmEvalTask(options, include_path, tokenizer)


EVALUATOR = EvaluatorPlugin(
    name="lm_eval",
    meaning="a task of lm-evaluation-harness: generate_until, loglikelihood or multiple_choice",
    options=LmEvalOptions,
    open=open_task,
)


def _blank(request: Instance) -> Instance:
    return dataclasses.replace(request, resps=[], filtered_resps={})


def _chosen(kind: str, wanted: str | None, known: list[str], task: str) -> str:
    """Return the wanted name, or the first one that the task lists."""
    if not known:
        raise EvaluationError(f"lm-eval task {task!r} declares no {kind}")
    if wanted is not None and wanted not in known:
        raise UnknownNameError(
            f"lm-eval task {task!r} has no {kind} {wanted!r}{hint(wanted, known)}; "
            f"known: {', '.join(known)}"
        )
    return known[0] if wanted is None else wanted


def _refuse_unless_mean(aggregation: Any, metric: str, task: str) -> None:
    from lm_eval.api.metrics import mean

    if aggregation is not mean:
        name = getattr(aggregation, "__name__", repr(aggregation))
        raise EvaluationError(
            f"metric {metric!r} of lm-eval task {task!r} is no mean over items (it aggregates by "
            f"{name}), so items cannot be scored one by one; choose another with `metric:`"
        )


# What these say is in the documents already, or is only a place or a name.
_WITHOUT_EFFECT = {
    *("custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "metadata"),
    *("tag", "task_alias"),
}


def _fingerprint(options: LmEvalOptions, metric: str, filter_: str, prepared: Prepared) -> str:
    task = prepared.task
    requests = hashlib.sha256()
    for group in prepared.requests:
        facts = [[r.request_type, r.arguments, r.idx, r.repeats] for r in group]
        target = task.doc_to_target(group[0].doc)
        requests.update(canonical([facts, group[0].doc, target]) + b"\n")
    settings = {
        f.name: getattr(task.config, f.name)
        for f in dataclasses.fields(task.config)
        if f.name not in _WITHOUT_EFFECT
    }
    written = json.dumps(settings, sort_keys=True, default=_named)
    return json.dumps(
        {
            "evaluator": "lm_eval",
            "lm_eval": version("lm_eval"),
            "task": options.task,
            "version": str(task.VERSION),
            "metric": metric,
            "filter": filter_,
            "num_fewshot": task.get_config("num_fewshot"),
            "seed": options.seed,
            "apply_chat_template": options.apply_chat_template,
            "items": len(prepared.requests),
            "requests": requests.hexdigest(),
            "settings": hashlib.sha256(written.encode()).hexdigest(),
        },
        sort_keys=True,
    )


def _named(value: Any) -> Any:
    """Stand in for what JSON cannot write: a function by its name and its file's bytes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if not callable(value):
        return str(value)
    try:
        file = inspect.getsourcefile(value)
    except TypeError:  # a callable object, or one made in C
        file = None
    code = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return [getattr(value, "__qualname__", type(value).__qualname__), code]

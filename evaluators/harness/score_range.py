"""Which scores an lm-eval metric can give: 0 or 1, some between two numbers, or nobody knows.

What lm-eval computes itself is known by the metric. A task's own code calls its metrics what it
likes, and some ``f1`` are percents: there a name in ``_SHARES`` counts as one in [0, 1] where
made-up right and wrong answers to some documents give nothing outside.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluators.harness.some_documents import Results, Say, has_own_results, results, right, wrong

if TYPE_CHECKING:
    from lm_eval.api.filter import FilterEnsemble
    from lm_eval.api.instance import Instance

    from evaluators.harness.metrics import Reduction
    from evaluators.harness.requests import Prepared

_SHARES = {
    *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "accuracy", "exact_match", "em", "f1"),
    *("prompt_level_strict_acc", "prompt_level_loose_acc"),
}
_LOOK = 16  # documents that are answered in vain
_GRADED = {"probability": (0.0, 1.0), "margin": None}  # see `choice_scores`


class Range(NamedTuple):
    """See ``TaskFacts``."""

    bounds: tuple[float, float] | None
    binary: bool = False


def range_of(prepared: Prepared, by: Reduction, filter: FilterEnsemble) -> Range:
    """Return which scores the items of a task can have by a metric and a filter."""
    task = prepared.task
    if by.metric not in task.aggregation():
        return Range(_GRADED[by.metric])
    if by.aggregation == "brier_score":
        return Range((0.0, 2.0))  # all on a wrong choice
    if by.aggregation != "mean":
        return Range(None)
    listed: dict[str, Any] = getattr(task, "_metric_fn_list", {})
    if not has_own_results(task) and by.metric in listed:
        found = _lm_evals(task, by.metric, listed[by.metric], prepared, filter)
        if found is not None:
            return found
    share = by.metric in _SHARES and _are_shares(prepared, by.metric, filter)
    return Range((0.0, 1.0) if share else None)


def _lm_evals(
    task: Any, metric: str, function: Any, prepared: Prepared, filter: FilterEnsemble
) -> Range | None:
    """Return the scores of ``ConfigurableTask.process_results``, None where it asks a function."""
    from lm_eval.api.metrics import exact_match_fn

    right_or_wrong = Range((0.0, 1.0), binary=True)
    if task.get_config("output_type") != "generate_until":
        return right_or_wrong
    said = _tried(task, prepared.requests[0], filter, right)
    if said is None or not isinstance(said.answers[0], str):  # a filter that leaves several
        return None
    return right_or_wrong if task.multiple_target or function is exact_match_fn else None


def _are_shares(prepared: Prepared, metric: str, filter: FilterEnsemble) -> bool:
    """Tell whether no made-up answer to some documents gets a score outside [0, 1]."""
    step = max(1, len(prepared.requests) // _LOOK)
    tried = [
        _tried(prepared.task, requests, filter, say)
        for requests in prepared.requests[::step]
        for say in (right, wrong)
    ]
    found = [each.metrics.get(metric) for each in tried if each is not None]
    known = [x for x in found if isinstance(x, (numbers.Real, np.bool_))]
    return bool(known) and all(0 <= float(x) <= 1 for x in known)


def _tried(
    task: Any, requests: Sequence[Instance], filter: FilterEnsemble, say: Say
) -> Results | None:
    try:
        return results(task, requests, filter, say)
    except Exception:  # the task's own code, on an answer that no model gave
        return None

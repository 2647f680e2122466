"""Which scores an lm-eval metric can give: 0 or 1, some between two numbers, or nobody knows.

What lm-eval computes itself is known by the metric. Of what a task's own code computes nothing is:
it calls its metrics what it likes, and some ``f1`` are percents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluators.harness.some_documents import Results, has_own_results, results, right

if TYPE_CHECKING:
    from lm_eval.api.filter import FilterEnsemble
    from lm_eval.api.instance import Instance

    from evaluators.harness.metrics import Reduction
    from evaluators.harness.requests import Prepared

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
        return _lm_evals(task, listed[by.metric], prepared, filter)
    return Range(None)


def _lm_evals(task: Any, function: Any, prepared: Prepared, filter: FilterEnsemble) -> Range:
    """Return the scores of ``ConfigurableTask.process_results``; of a function nothing is known."""
    from lm_eval.api.metrics import exact_match_fn

    right_or_wrong = Range((0.0, 1.0), binary=True)
    if task.get_config("output_type") != "generate_until":
        return right_or_wrong
    said = _tried(task, prepared.requests[0], filter)
    if said is None or not isinstance(said.answers[0], str):  # a filter that leaves several
        return Range(None)
    return right_or_wrong if task.multiple_target or function is exact_match_fn else Range(None)


def _tried(task: Any, requests: Sequence[Instance], filter: FilterEnsemble) -> Results | None:
    try:
        return results(task, requests, filter, right)
    except Exception:  # the task's own code, on an answer that no model gave
        return None

"""Metrics that a task gives for some documents only: lm-eval takes their mean over those.

So the others take no part: they are items of no pool. Which ones these are must not depend on what
the model answers, or candidates would be compared on different items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from lm_eval.api.filter import FilterEnsemble
    from lm_eval.api.instance import Instance

    from evaluators.harness.requests import Prepared

Say = Callable[[Any, "Instance"], object]

_LOOK = 64  # documents that are looked at first: some tasks take long to judge an answer


def with_metric(prepared: Prepared, filter: FilterEnsemble, metric: str) -> Prepared:
    """Return a task with those of its documents that have a metric.

    Looked at by two made-up answers, a wrong one and the right one; all documents where one of
    some has not got it.

    Raises:
        EvaluationError: It has the metric for some answers only, or for no document.
    """
    task = prepared.task
    if metric not in task.aggregation() or not has_own_results(task):
        return prepared

    def lacking(documents: Sequence[Sequence[Instance]]) -> list[set[int]]:
        return [
            {
                i
                for i, requests in enumerate(documents)
                if not _has(task, requests, filter, metric, say)
            }
            for say in (wrong, right)
        ]

    step = max(1, len(prepared.requests) // _LOOK)
    if not any(lacking(prepared.requests[::step])):
        return prepared
    by_wrong, by_right = lacking(prepared.requests)
    if by_wrong != by_right or len(by_wrong) == len(prepared.requests):
        which = "no document" if by_wrong == by_right else "some answers only"
        others = ", ".join(name for name in task.aggregation() if name != metric)
        raise EvaluationError(
            f"lm-eval task {prepared.name!r} has the metric {metric!r} for {which}, so candidates "
            f"cannot be compared by it; choose {others or 'another task'} with `metric:`"
        )
    kept = [x for i, x in enumerate(prepared.requests) if i not in by_wrong]
    return replace(prepared, requests=tuple(kept))


def has_own_results(task: Any) -> bool:
    """Tell whether a task scores answers by code of its own."""
    from lm_eval.api.task import ConfigurableTask

    theirs = ConfigurableTask.process_results
    return bool(task.config.process_results) or type(task).process_results is not theirs


def _has(
    task: Any,
    requests: Sequence[Instance],
    filter: FilterEnsemble,
    metric: str,
    say: Say,
) -> bool:
    """Return whether a made-up answer has the metric; what cannot be tried counts as one."""
    try:
        return metric in results(task, requests, filter, say).metrics
    except Exception:  # the task's own code, on an answer that no model gave
        return True


class Results(NamedTuple):
    """What a document's made-up answers are after the filter, and what the task makes of them."""

    answers: list[Any]
    metrics: dict[str, Any]


def results(task: Any, requests: Sequence[Instance], filter: FilterEnsemble, say: Say) -> Results:
    """Answer a document's requests with ``right`` or ``wrong``; the task's code may raise."""
    copies = [replace(r, resps=[], filtered_resps={}) for r in requests]
    for request in copies:
        request.resps.extend([say(task, request)] * request.repeats)
    filter.apply(copies)
    answers = [request.filtered_resps[filter.name] for request in copies]
    return Results(answers, task.process_results(requests[0].doc, answers))


def wrong(task: Any, request: Instance) -> object:
    """Return an answer that should be a wrong one, as an engine would give it."""
    text = request.request_type == "generate_until"
    nats = -1.0 - request.idx
    return (
        "" if text else nats if request.request_type == "loglikelihood_rolling" else (nats, False)
    )


def right(task: Any, request: Instance) -> object:
    """Return an answer that should be the right one, as an engine would give it."""
    if request.request_type == "generate_until":
        return str(task.doc_to_target(request.doc))
    return -1.0 if request.request_type == "loglikelihood_rolling" else (-1.0, True)

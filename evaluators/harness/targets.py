"""What the documents of an lm-eval task want said, by the task's own words for it.

    generate_until          target_delimiter, doc_to_target and what ends it, after the prompt
    multiple_choice         the request of the right choice among those of all, compared as the
                            metric compares them; its exact_match: the right one, against all else
    loglikelihood           the continuation
    loglikelihood_rolling   the text; perplexities of both kinds are their own loss

A task with a ``process_results`` of its own may know more right choices than ``doc_to_target``
says: they are those that its metric likes best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluators.choice_scores import mean_sized
from evaluators.harness.some_documents import has_own_results
from evaluators.target import Choice, Target
from merge_core.errors import EvaluationError, MergeError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from evaluators.harness.metrics import Reduction
    from evaluators.harness.requests import Prepared


@dataclass(frozen=True)
class Ending:
    """What ends an answer where no stop string does: the text of a token; and whether in a chat."""

    token: str
    chat: bool


class NoTarget(Exception):
    """A task does not say what is right, and why."""


def targets_of(prepared: Prepared, by: Reduction, ending: Ending) -> tuple[Target, ...]:
    """Return one target per document.

    Raises:
        NoTarget: The task does not say what is right.
        EvaluationError: It raised.
    """
    found = []
    for place, requests in enumerate(prepared.requests):
        try:
            found.append(_target(prepared, by, place, requests, ending))
        except NoTarget as error:
            raise NoTarget(f"document {place} {error}") from error
        except MergeError:
            raise
        except Exception as error:  # whatever a task's own code does
            raise EvaluationError(
                f"{prepared.name}: what document {place} wants said: {type(error).__name__}: "
                f"{error}"
            ) from error
    return tuple(found)


def _target(
    prepared: Prepared, by: Reduction, place: int, requests: Sequence[Instance], ending: Ending
) -> Target:
    task, first = prepared.task, requests[0]
    if first.request_type == "generate_until":
        return _written(task, first, ending)
    if first.request_type == "loglikelihood_rolling":
        counted = 1.0 if by.aggregation == "weighted_perplexity" else math.log(2)
        size = None if by.sizes is None else by.sizes[place] * counted
        return Target((Choice((first.args[0],), size=size),))
    if task.get_config("output_type") == "multiple_choice":
        return _chosen(task, by, requests)
    if len(requests) > 1:
        raise NoTarget("has several continuations, and not which of them is right")
    return Target((Choice((first.args,), size=1.0 if by.aggregation == "perplexity" else None),))


def _written(task: Any, request: Instance, ending: Ending) -> Target:
    """Return the right answers, with what stands before them and what ends them."""
    context, how = request.args
    answers = written_answers(task, request.doc)
    if not answers or not all(answer.strip() for answer in answers):
        raise NoTarget("has no right answer (doc_to_target)")
    end = ending.token if ending.chat else _stop(task, context, how.get("until") or [], ending)
    texts = [f"{_gap(task, context, x, ending)}{x}{end}" for x in answers]
    return Target.written(context, texts)


def written_answers(task: Any, doc: Any) -> list[str]:
    """Return the right answers in words; none where the task says nothing of a document."""
    gold = task.doc_to_target(doc)
    if task.get_config("doc_to_choice") is not None and isinstance(gold, int):
        gold = task.doc_to_choice(doc)[gold]
    elif isinstance(task.get_config("doc_to_target"), int):
        return []  # a number that stands in the task's file is no answer: there has to be some
    listed = gold if isinstance(gold, list | tuple) else [gold]
    return [str(x) for x in listed]


def _gap(task: Any, context: str, answer: str, ending: Ending) -> str:
    """Return what stands between prompt and answer, as in the task's examples."""
    prefix = task.get_config("gen_prefix")
    blank = context[-1:].isspace() or answer[:1].isspace()
    if prefix:
        return "" if blank else " "
    delimiter = "" if ending.chat else str(task.get_config("target_delimiter") or "")
    return "" if blank and delimiter.isspace() else delimiter


def _stop(task: Any, context: str, until: str | Sequence[str], ending: Ending) -> str:
    """Return what would end an answer: the stop string that examples end with, else the first.

    Examples stand apart by ``fewshot_delimiter``; where the prompt has that before a stop string
    (as ``\\n\\n`` before ``Question:``), both together are what ends an answer.
    """
    stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
    between = str(task.get_config("fewshot_delimiter") or "")
    for stop in stops:
        if between.startswith(stop):
            return stop
    for stop in stops:
        if f"{between}{stop}" in context:
            return f"{between}{stop}"
    return stops[0] if stops else ending.token


def _chosen(task: Any, by: Reduction, requests: Sequence[Instance]) -> Target:
    """Return the choices as the metric compares them."""
    doc = requests[0].doc
    choices = task.doc_to_choice(doc)
    count = len(choices)
    right = right_choices(task, by, requests)
    if by.metric == "exact_match":
        return Target(tuple(Choice((r.args,)) for r in requests[:count]), right)
    sizes = mean_sized(by.metric, choices)
    alone = requests[count:] if by.metric == "acc_mutual_info" else ()
    return Target(
        tuple(
            Choice((r.args,), tuple(x.args for x in alone[k : k + 1]), sizes[k])
            for k, r in enumerate(requests[:count])
        ),
        right,
        competing=True,
    )


def right_choices(task: Any, by: Reduction, requests: Sequence[Instance]) -> tuple[int, ...]:
    """Return the places of a document's right choices.

    Raises:
        NoTarget: The task does not say which these are.
    """
    doc = requests[0].doc
    if has_own_results(task):
        return _by_metric(task, by, requests)
    return _places(task, doc, task.doc_to_choice(doc))


def _places(task: Any, doc: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """Return which choices are right, as lm-eval reads it: places or a text."""
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    listed = gold if isinstance(gold, list) else [gold]
    found = [choices.index(x) if isinstance(x, str) and x in choices else x for x in listed]
    places = {x for x in found if isinstance(x, int) and 0 <= x < len(choices)}
    if not places:
        raise NoTarget(f"has the right choice {gold!r}, which is none of {list(choices)}")
    return tuple(sorted(places))


def _by_metric(task: Any, by: Reduction, requests: Sequence[Instance]) -> tuple[int, ...]:
    """Return the choices that a metric likes best, each tried as the likeliest by far."""
    doc, count = requests[0].doc, len(requests)
    better = 1 if task.higher_is_better().get(by.metric, True) else -1
    values = []
    for k in range(count):
        says = [(-1.0, True) if i == k else (-1e6, False) for i in range(count)]
        values.append(better * by.score(task.process_results(doc, says)))
    places = tuple(k for k, value in enumerate(values) if value == max(values))
    if len(places) == count:
        raise NoTarget(f"has choices of which {by.metric} likes all alike")
    return places

"""lm-eval tasks that have no score per item, or not the same one each time: refused with a reason.

Both functions raise ``EvaluationError``, which names the task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from evaluators.engines.stopping import LIMITS, samples
from evaluators.harness.options import LmEvalOptions
from evaluators.thinking import thinks
from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

# request types that give one score per item
ANSWERABLE = ("loglikelihood", "loglikelihood_rolling", "generate_until")
MOST_REPEATS = 1000


def refuse_task(name: str, task: Task, given: Sequence[str]) -> None:
    """Refuse tasks that run what a model writes, or ask with more than text.

    Also those that score whole texts where settings of prompts are ``given``: lm-eval ignores them.
    """
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"lm-eval task {name!r} runs code that the model writes; not done")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"lm-eval task {name!r} needs images or sound; only text is scored")
    repeats = task.get_config("repeats") or 1
    if not isinstance(repeats, int) or not 1 <= repeats <= MOST_REPEATS:
        raise EvaluationError(
            f"lm-eval task {name!r}: repeats: expected 1 to {MOST_REPEATS}, got {repeats!r}; "
            "greedy answers are the same each time"
        )
    if given and task.get_config("output_type") == "loglikelihood_rolling":
        raise EvaluationError(
            f"lm-eval task {name!r} scores whole texts and has no prompts; omit {', '.join(given)}"
        )


def refuse_settings(name: str, kinds: Collection[str], options: LmEvalOptions) -> None:
    """Refuse settings of answers for tasks, by their output types, that do not write any."""
    others = sorted({*kinds} - {"generate_until"})
    if thinks(options.chat_template_args) and others:
        raise EvaluationError(
            f"lm-eval task {name!r} asks for likelihoods ({', '.join(others)}), which are of "
            "answers without thoughts; set chat_template_args.enable_thinking to false"
        )
    for key in ("gen_kwargs", "think_end_token"):
        if getattr(options, key) is not None and "generate_until" not in kinds:
            raise EvaluationError(
                f"lm-eval task {name!r} has {key}, but generates nothing; omit {key}"
            )


def refuse_requests(name: str, documents: Sequence[Sequence[Instance]]) -> None:
    """Refuse requests that have no one score per item, or another one each time.

    Nor may a text or a choice be empty: lm-eval gives it the log-likelihood of a perfect model.
    """
    requests = [request for document in documents for request in document]
    others = sorted({r.request_type for r in requests} - set(ANSWERABLE))
    if others:
        raise EvaluationError(
            f"lm-eval task {name!r} asks for {', '.join(others)}; "
            f"supported are {', '.join(ANSWERABLE)} and multiple_choice"
        )
    if any(samples(r.args[1]) for r in requests if r.request_type == "generate_until"):
        raise EvaluationError(
            f"lm-eval task {name!r} draws its answers at random (do_sample or temperature), "
            "so a score could not be repeated; use a greedy variant of it"
        )
    for place, document in enumerate(documents):
        for request in document:
            rule = _cannot_be_asked(request)
            if rule:
                raise EvaluationError(f"lm-eval task {name!r}: document {place} {rule}")


def _cannot_be_asked(request: Instance) -> str:
    """Return why no model has an answer to a request, or nothing."""
    if request.request_type == "loglikelihood_rolling":
        return "" if request.args[0] else "is empty; leave it out of the task's data"
    if request.request_type == "loglikelihood":
        return "" if request.args[1] else "has an empty choice or continuation; leave it out"
    how = request.args[1]
    for key in LIMITS:
        most = how.get(key)
        if most is not None and (not isinstance(most, int) or most < 1):
            return f"asks for an answer of {key}: {most!r}, expected a whole number of at least 1"
    stops = how.get("until") or []
    if not isinstance(stops, str) and not all(isinstance(stop, str) for stop in stops):
        return f"stops an answer at until: {stops!r}, expected texts"
    return ""

"""lm-eval tasks that have no score per item, or not the same one each time: refused with a reason.

Both functions raise ``EvaluationError``, which names the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluators.engines.stopping import samples
from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

# request types that give one score per item
ANSWERABLE = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def refuse_task(name: str, task: Task, given: Sequence[str]) -> None:
    """Refuse tasks that run what a model writes, or ask with more than text.

    Also those that score whole texts where settings of prompts are ``given``: lm-eval ignores them.
    """
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"lm-eval task {name!r} runs code that the model writes; not done")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"lm-eval task {name!r} needs images or sound; only text is scored")
    if given and task.get_config("output_type") == "loglikelihood_rolling":
        raise EvaluationError(
            f"lm-eval task {name!r} scores whole texts and has no prompts; omit {', '.join(given)}"
        )


def refuse_requests(name: str, documents: Sequence[Sequence[Instance]]) -> None:
    """Refuse requests that have no one score per item, or another one each time.

    Nor may a text be empty: lm-eval gives it the log-likelihood of a perfect model.
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
        if any(r.request_type == "loglikelihood_rolling" and not r.args[0] for r in document):
            raise EvaluationError(
                f"lm-eval task {name!r}: document {place} is empty; leave it out of the task's data"
            )

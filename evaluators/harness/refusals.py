"""lm-eval tasks that have no score per item, or not the same one each time: refused with a reason.

Every function raises ``EvaluationError``, which names the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from evaluators.engines.stopping import samples
from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

# request types that give one score per item
ANSWERABLE = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def refuse_special(name: str, task: Task) -> None:
    """Refuse tasks that run what a model writes, or ask with more than text."""
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"lm-eval task {name!r} runs code that the model writes; not done")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"lm-eval task {name!r} needs images or sound; only text is scored")


def refuse_without_generation(name: str, tasks: Iterable[Task]) -> None:
    """Refuse generation settings where nothing is generated."""
    if all(task.get_config("output_type") != "generate_until" for task in tasks):
        raise EvaluationError(
            f"lm-eval task {name!r} has gen_kwargs, but generates nothing; omit them"
        )


def refuse_prompts_of_texts(name: str, task: Task, given: Sequence[str]) -> None:
    """Refuse settings that change prompts where whole texts are scored, which lm-eval ignores."""
    if given and task.get_config("output_type") == "loglikelihood_rolling":
        raise EvaluationError(
            f"lm-eval task {name!r} scores whole texts and has no prompts; omit {', '.join(given)}"
        )


def refuse_unrepeatable(name: str, instances: Sequence[Instance]) -> None:
    """Refuse requests that have no one score per item, or another one each time."""
    others = sorted({i.request_type for i in instances} - set(ANSWERABLE))
    if others:
        raise EvaluationError(
            f"lm-eval task {name!r} asks for {', '.join(others)}; "
            f"supported are {', '.join(ANSWERABLE)} and multiple_choice"
        )
    if any(samples(i.args[1]) for i in instances if i.request_type == "generate_until"):
        raise EvaluationError(
            f"lm-eval task {name!r} draws its answers at random (do_sample or temperature), "
            "so a score could not be repeated; use a greedy variant of it"
        )


def refuse_empty(name: str, requests: Sequence[Sequence[Instance]]) -> None:
    """Refuse documents without a text: lm-eval gives them the log-likelihood of a perfect model."""
    for place, group in enumerate(requests):
        if any(r.request_type == "loglikelihood_rolling" and not r.args[0] for r in group):
            raise EvaluationError(
                f"lm-eval task {name!r}: document {place} is empty; leave it out of the task's data"
            )

"""The tasks of a mergekit-evolve configuration -> score entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_core.errors import ParameterError
from search.draft.evolve_file import METRIC, Evolve, Task

# parts of names of metrics of which less is better; there such a task has a negative weight
LOWER = ("perplexity", "ppl", "bits", "wer", "cer", "ter", "brier", "loss", "error", "nll")


@dataclass(frozen=True)
class Scores:
    """Score entries, comments on them, and what is not in them or in another way."""

    plain: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def entries(evolve: Evolve, include: Mapping[str, Any], *, chat: bool) -> Scores:
    """Return the score entries of a configuration.

    Args:
        evolve: The configuration.
        include: A key for each entry: the folder of task files, if there is one.
        chat: Whether there is a chat template, as far as that can be seen.

    Raises:
        ParameterError: A weight cannot be carried over, or none is left.
    """
    found, shared = Scores(), _shared(evolve, chat=chat)
    found.notes.update(_notes(evolve, chat=chat))
    for i, task in enumerate(evolve.tasks):
        path = f"tasks[{i}].weight"
        if task.weight == 0:
            found.notes[path] = f"not carried over: {task.name} with the weight 0 has no say"
            continue
        if task.weight < 0:
            found.notes[path] = _turned(task, path)
        if f"tasks[{i}].metric" not in evolve.said:
            where = f"score[{len(found.plain)}]"
            found.comments[where] = f"metric: {METRIC} where mergekit-evolve's file says none"
        weight = {"weight": abs(task.weight)} if abs(task.weight) != 1 else {}
        entry = {"evaluator": "lm_eval", "task": task.name, **include, **_metric(task)}
        found.plain.append({**entry, **shared, **weight})
    if not found.plain:
        raise ParameterError("tasks: none is left; a study needs one whose weight is not 0")
    return found


def _metric(task: Task) -> dict[str, str]:
    """Return metric and filter of lm-eval's ``acc,none``."""
    metric, comma, filter = task.metric.partition(",")
    return {"metric": metric, **({"filter": filter} if comma and filter else {})}


def _turned(task: Task, path: str) -> str:
    """Return what becomes of a negative weight: the metric itself says that less is better."""
    metric = task.metric.partition(",")[0].lower()
    if not any(part in metric for part in LOWER):
        raise ParameterError(
            f"{path}: must be above 0, got {task.weight:g}: a study cannot look for a worse "
            f"{task.metric} of {task.name}; a metric of which less is better says so itself"
        )
    return (
        f"{task.weight:g} is {-task.weight:g} here: that less {metric} is better is known of the "
        f"metric (perplexities add up as nats)"
    )


def _shared(evolve: Evolve, *, chat: bool) -> dict[str, Any]:
    settings, found = evolve.settings, {}
    if settings.num_fewshot is not None:
        found["num_fewshot"] = settings.num_fewshot
    if settings.apply_chat_template and (chat or "apply_chat_template" in evolve.said):
        found["apply_chat_template"] = True
        if not settings.fewshot_as_multiturn:
            found["fewshot_as_multiturn"] = False
    return found


def _notes(evolve: Evolve, *, chat: bool) -> dict[str, str]:
    settings, found = evolve.settings, {}
    if settings.apply_chat_template and "apply_chat_template" not in evolve.said:
        rule = "true, as it is where mergekit-evolve's file does not say it"
        if not chat:
            rule = "true where mergekit-evolve's file does not say it; not here: no chat template"
        found["apply_chat_template"] = rule
    if settings.limit is not None:
        found["limit"] = (
            f"the first {settings.limit} items of each task steered; here as many in all, drawn at "
            f"random, steer (at most a third), as many others choose the winner, the rest measures"
        )
    if settings.shuffle:
        found["shuffle"] = "not carried over: items are drawn at random anyway"
    if settings.random_init:
        found["random_init"] = "not carried over: the search begins with simple merges"
    return found

"""What is wrong with a study's tokenizer and tasks, all at once and without a model's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from evaluators.harness.cache_only import cache_only, is_absent
from evaluators.protocol import Evaluator, Suite
from merge_core.errors import MergeError, Problems
from search.run.first_items import FirstItem, first_items
from search.run.shown import few, shown
from search.scoring.objectives import named, opened_entry
from search.scoring.told import clustered, fewer
from search.spec.study_file import StudySpec
from search.trial.slopes import ALONE, FIRST, left_out, refused, untrainable, without_targets
from search.trial.tasks import Tasks

ABSENT = "what it asks is not in the hub's cache; `run` fetches it, before any model"


class OpenedTasks(NamedTuple):
    """What is wrong with tasks, or what is known of them.

    ``problems`` are key paths in the study file, and what is wrong there; ``facts`` are shown, and
    the ``first`` items of each task as a model will read them; ``tasks``: if nothing is wrong.
    """

    problems: Problems = []  # noqa: RUF012
    warnings: list[str] = []  # noqa: RUF012
    facts: dict[str, Any] = {}  # noqa: RUF012
    first: Mapping[str, Sequence[FirstItem]] = {}
    tasks: Tasks | None = None


def opened_tasks(spec: StudySpec, tokenizer: Any, *, fetch: bool = True) -> OpenedTasks:
    """Open what a study scores with, as a run does; consent to code and keys is needed alike.

    Args:
        spec: The study.
        tokenizer: That of all candidates.
        fetch: Whether data sets may be fetched from the hub; if not, those that are not in its
            cache are a warning, and no task is known.
    """
    with nullcontext() if fetch else cache_only():
        return _opened(spec, tokenizer, fetch)


def _opened(spec: StudySpec, tokenizer: Any, fetch: bool) -> OpenedTasks:
    found: Problems = []
    absent: list[str] = []
    opened, steering = [], {}
    for i in range(len(spec.scores)):
        try:
            one, by = opened_entry(spec, i, tokenizer)
        except MergeError as error:
            if not fetch and is_absent(error):
                absent.append(f"score[{i}] is not opened: {ABSENT} ({error})")
            else:
                found.append(_problem(i, error))
            continue
        opened.append(one)
        if by is not None:
            steering[i] = by
    if found or absent:
        return OpenedTasks(found, absent)
    return _together(spec, opened, steering)


def _problem(i: int, error: MergeError) -> tuple[str, str]:
    """Return key path and rule of an entry that cannot be opened."""
    path = f"score[{i}]"
    rule = str(error).removeprefix(f"{path}.steer: ")
    return (path if rule == str(error) else f"{path}.steer", rule)


def _together(
    spec: StudySpec,
    opened: Sequence[Evaluator | Suite],
    steering: Mapping[int, Evaluator | Suite],
) -> OpenedTasks:
    try:
        tasks = Tasks(spec, named(spec, opened, steering))
        first = first_items(tasks)
    except MergeError as error:
        return OpenedTasks([("score", str(error))])
    untaught = untrainable(spec, tasks)
    if untaught:
        return OpenedTasks([("recipe.moe.gate_mode", untaught)])
    why, sampler = without_targets(tasks), spec.search.sampler
    if why and sampler == ALONE:
        return OpenedTasks([("search.sampler", refused(why))])
    warnings = [left_out(why)] if why and sampler == FIRST else []
    warnings += [line for line in (few(tasks),) if line]
    return OpenedTasks(warnings=warnings, facts=_facts(tasks), first=first, tasks=tasks)


def _facts(tasks: Tasks) -> dict[str, Any]:
    told = {
        "items": _counts(tasks),
        "clusters": clustered(tasks.evaluators),
        "pools": fewer(tasks.asked, tasks.pools),  # as asked for otherwise
    }
    found: dict[str, Any] = {name: lines for name, lines in told.items() if lines}
    least = shown(tasks)
    return found if least is None else {**found, "report pool": least}


def _counts(tasks: Tasks) -> list[str]:
    """Say how many items each task has, and how many of them are in which pool."""
    return [
        f"{task} {len(evaluator.items)} ("
        + ", ".join(f"{name} {len(pool.of(task))}" for name, pool in tasks.pools.items())
        + ")"
        for task, evaluator in tasks.evaluators.items()
    ]

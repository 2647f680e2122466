"""How much a seed moves scores: one merge for each seed, scored by a study's tasks.

The items are those of the select pool: who takes the best seed has chosen by them, and the report
items of the study have chosen nothing.

Of a task's scores, seeds by items, what is left without the means of seeds and of items (the rest
of an analysis of variance with two ways) says how far means over so few items are apart by chance.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from merge_core.output.model_folder import portable
from merge_core.plan.steps import Plan
from search.scoring.pools import NAMES
from search.spec import study_file
from search.trial.builder import Builder
from search.trial.tasks import Scores, Tasks, open_tasks

POOL = NAMES[1]


@dataclass(frozen=True)
class TaskSpread:
    """A task's scores: ``each`` seed's, their mean and deviation, and what items alone make."""

    task: str
    items: int
    each: list[float]
    mean: float
    deviation: float
    by_items: float  # the deviation that items alone would make


@dataclass(frozen=True)
class SeedScores:
    """What a seed decides of the scores; ``values``: a study's one number, of each seed."""

    pool: str
    tasks: list[TaskSpread]
    values: list[float]
    mean: float
    deviation: float
    standard_error: float  # of one seed's number, by its items; the mean over the seeds

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def seed_scores(
    study: Path, plans: Sequence[Plan], progress: Callable[[int, int], None] | None = None
) -> SeedScores:
    """Build a merge of each seed in memory, and score it.

    Args:
        study: A study file or its folder; its tasks, pools and engine are used, not its recipe.
        plans: One of each seed, of one recipe.
        progress: Is told how many seeds are done, and how many there are.

    Raises:
        MergeError: The study cannot be read, a task not be opened, or a candidate not be scored.
    """
    spec = study_file.read(study)
    recipes = [portable(plan.recipe, plan.opened, spec.folder) for plan in plans]
    builder = Builder(spec.model_copy(update={"baselines": {"merge": recipes[0]}}))
    tasks = open_tasks(spec, builder.tokenizer)
    found: list[Scores] = []
    for i, recipe in enumerate(recipes):
        builder.build(recipe)
        if not found:
            tasks.check_fit(builder.live)
        found.append(tasks.score(builder.live, POOL))
        if progress is not None:
            progress(i + 1, len(recipes))
    return _summed(tasks, found)


def _summed(tasks: Tasks, found: Sequence[Scores]) -> SeedScores:
    values, errors = zip(*(tasks.value(scores, POOL) for scores in found), strict=True)
    signs = {task: 1 if e.higher_is_better else -1 for task, e in tasks.evaluators.items()}
    by_seed = [tasks.contributions(scores, POOL) for scores in found]
    return SeedScores(
        POOL,
        [
            task_spread(task, np.array([one[task] for one in by_seed]) * sign)
            for task, sign in signs.items()
        ],
        [float(value) for value in values],
        statistics.mean(values),
        statistics.stdev(values),
        statistics.mean(errors),
    )


def task_spread(task: str, scores: np.ndarray[Any, Any]) -> TaskSpread:
    """Return how far seeds are apart in a task. ``scores``: ``(seeds, items)``, at least two."""
    seeds, items = scores.shape
    each = scores.mean(1)
    rest = scores - each[:, None] - scores.mean(0) + scores.mean()
    variance = float((rest**2).sum()) / ((seeds - 1) * max(1, items - 1))
    return TaskSpread(
        task,
        items,
        each.tolist(),
        float(each.mean()),
        float(each.std(ddof=1)),
        float(np.sqrt(variance / items)),
    )

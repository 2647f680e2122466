"""What the base of a study scores on a few items, and says to some: is the study asked as meant?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluators.answer import Answer
from evaluators.protocol import Evaluator
from merge_core.errors import MergeError
from search.run.answer_ends import delimiter_for, stop_for
from search.run.first_items import right_texts
from search.run.suspicion import cause
from search.space.starting_points import BASE, Baseline, baselines
from search.spec.study_file import StudySpec
from search.trial.tasks import SEARCH, Tasks
from search.trial.worker import Job, Result, Worker

ASKED, SHOWN = 8, 2  # items of a task whose answers are looked at, and shown


@dataclass(frozen=True)
class BaseScores:
    """What the base, or the first parent where there is none, scores.

    Args:
        name: Of the baseline.
        items: Task -> how many of its search items were scored.
        scores: Task -> their mean, as the task reports it.
        units: Task -> what a score counts.
        warnings: What looks wrong.
        answers: Task -> what it says to the first of them; not of tasks without answers.
    """

    name: str
    items: Mapping[str, int]
    scores: Mapping[str, float]
    units: Mapping[str, str]
    warnings: Sequence[str]
    answers: Mapping[str, Sequence[Answer]]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def base_scores(spec: StudySpec, worker: Worker, most: int) -> BaseScores:
    """Build and score the base of a study.

    Args:
        spec: The study.
        worker: Does it.
        most: Items of each task, at most.

    Raises:
        MergeError: It cannot be built, scored or asked.
    """
    tasks = worker.tasks
    found = baselines(spec, worker.builder.space)
    one = next((x for x in found if x.name == BASE), found[0])
    items = {t: min(most, len(tasks.pools[SEARCH].of(t))) for t in tasks.scored_by(SEARCH)}
    blocks = {task: (0, count) for task, count in items.items()}
    scores = _done(worker, one, Job(one.recipe, SEARCH, blocks=blocks)).scores or {}
    asks = {task: range(min(ASKED, count)) for task, count in items.items() if count}
    answers = _done(worker, one, Job(one.recipe, SEARCH, asks=asks)).answers or {}
    evaluators = tasks.scored_by(SEARCH)
    odd = [task for task, some in scores.items() if _is_odd(evaluators[task], some)]
    return BaseScores(
        one.name,
        items,
        {task: _mean(tasks, task, some) for task, some in scores.items()},
        {task: evaluators[task].unit for task in scores},
        [
            *(
                f"{one.name} scores {scores[task][0]:g} on each of {len(scores[task])} items of "
                f"{task}: {cause(answers.get(task, ()))}"
                for task in odd
            ),
            *_advice(tasks, answers, odd),
        ],
        {task: said[:SHOWN] for task, said in answers.items()},
    )


def _advice(
    tasks: Tasks, answers: Mapping[str, Sequence[Answer]], odd: Collection[str]
) -> Iterator[str]:
    """Yield what would let a task see right answers that it does not, whatever it scores.

    ``odd``: tasks of which what ends answers is said already.
    """
    for task, said in answers.items():
        found = delimiter_for(_begins(tasks, task, len(said)), said)
        for line in (found, "" if task in odd else stop_for(said)):
            if line:
                yield f"{task}: {line}"


def _begins(tasks: Tasks, task: str, count: int) -> list[str]:
    """Return what is right to write to the first items, as the task scores it; "" if unknown."""
    evaluator, places = tasks.evaluators[task], tasks.pools[SEARCH].of(task)[:count]
    written = [how is not None for how in evaluator.generation(places)]
    texts = [right_texts(evaluator, i) if w else () for i, w in zip(places, written, strict=True)]
    return [next(iter(text), "") for text in texts]


def _done(worker: Worker, one: Baseline, job: Job) -> Result:
    result = worker.run(job)
    if result.failure is not None:
        raise MergeError(f"baseline {one.name}: {result.failure.reason}")
    return result


def _mean(tasks: Tasks, task: str, scores: Sequence[float]) -> float:
    """Return the mean of the first search items of a task, as the task reports it."""
    evaluator = tasks.scored_by(SEARCH)[task]
    sizes = None
    if evaluator.sizes is not None:
        sizes = [evaluator.sizes[i] for i in tasks.pools[SEARCH].of(task)[: len(scores)]]
    return evaluator.reported(float(np.average(scores, weights=sizes)))


def _is_odd(evaluator: Evaluator, scores: Sequence[float]) -> bool:
    """Return whether all have the worst score or the best, or 0 where these are not known."""
    if evaluator.exact or evaluator.measured or len(scores) < 2:
        return False
    return len({*scores}) == 1 and scores[0] in (evaluator.bounds or (0.0,))

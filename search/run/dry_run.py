"""What a study will cost: one candidate is built, and scored on a few items of each task.

Nothing is stored: neither in the study's storage nor in its results.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from merge_core.contract import Param
from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe
from search.run.base_scores import BaseScores, base_scores
from search.run.size import Counts
from search.run.steps import steps
from search.samplers.steps import PARTS
from search.scoring.pools import NAMES
from search.space.space import Space
from search.space.starting_points import DEFAULTS, SIMPLE, baselines, defaults
from search.space.units import Drawn
from search.spec import study_file
from search.spec.ranges import Knob
from search.spec.study_file import StudySpec
from search.trial.backends import device_of
from search.trial.budget import NO_CHANGE, Budget, Change
from search.trial.progress import Unheard
from search.trial.slopes import BACKWARD
from search.trial.tasks import Tasks
from search.trial.trial import Trial
from search.trial.worker import Job, Result, Worker
from search.workers.devices import cpus_here

SEARCH, SELECT, REPORT = NAMES
FEW = 32  # items of a task that are scored, a batch at most, after one to warm up


@dataclass(frozen=True)
class Costs:
    """What a study takes on this machine.

    Args:
        first_build: Seconds of the first one, with what is computed once and compiled.
        build: Seconds of one after it.
        per_item: Task -> seconds for one of its search items.
        items: Pool -> items that a candidate has there.
        candidates: How many there are, by what becomes of them.
        steps: How many of the trials may be steps by gradient.
        seconds: Of one ``trial`` that is drawn, of a ``step`` by gradient; of all ``baselines``, of
            the ``search`` within the budget's hours, of ``select`` and ``report``; and of ``all``.
        items_scored: In all.
        memory: Bytes: ``process``, its peak with the pages of mapped files, and ``device``; of one
            worker.
        workers: How many candidates are built and scored at a time.
        base: What the base scores on a few items, where it was scored.
    """

    first_build: float
    build: float
    per_item: Mapping[str, float]
    items: Mapping[str, int]
    candidates: Counts
    steps: int
    seconds: Mapping[str, float]
    items_scored: int
    memory: Mapping[str, int]
    workers: int = 1
    base: BaseScores | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


def dry_run(path: Path, change: Change = NO_CHANGE, workers: int = 1) -> Costs:
    """Score the base of a study on a few items, then build and score one candidate.

    Args:
        path: The study file or its folder.
        change: What the run would have instead of the file's budget.
        workers: How many it would have, each with its part of the threads.

    Raises:
        MergeError: A model or a task cannot be opened, or the candidate fails.
    """
    spec = study_file.read(path)
    threads = None if workers == 1 else max(1, len(cpus_here()) // workers)
    worker = Worker(spec.data, spec.folder, threads=threads)
    costs = measured(spec, worker, change, workers)
    return replace(costs, base=base_scores(spec, worker, FEW))


def measured(
    spec: StudySpec, worker: Worker, change: Change = NO_CHANGE, workers: int = 1
) -> Costs:
    """Return what a study costs, by what a worker takes for one candidate of it."""
    space, tasks = worker.builder.space, worker.tasks
    budget = Budget.of(spec.search, change, ())
    counts = Counts.of(spec, space, budget)
    first, candidate = _two(spec, space)
    builds = [_build_seconds(worker, x) for x in (first, candidate)]
    search = _per_item(worker, candidate, SEARCH)
    later = _per_item(worker, candidate, SELECT) if tasks.steering else search
    by_pool = {SEARCH: search, SELECT: later, REPORT: later}
    each = {pool: builds[1] + _pool_seconds(tasks, pool, by_pool[pool]) for pool in NAMES}
    items = {name: len(pool) for name, pool in tasks.pools.items()}
    stepping = _stepping(spec, worker, counts.trials, builds[1], each[SEARCH] - builds[1])
    drawn = counts.baselines + counts.trials - stepping.most
    scored = {SEARCH: drawn, SELECT: counts.select + counts.again, REPORT: counts.report}
    return Costs(
        first_build=builds[0],
        build=builds[1],
        per_item=search,
        items=items,
        candidates=counts,
        steps=stepping.most,
        seconds=_seconds(counts, each, budget, stepping, workers),
        items_scored=sum(scored[pool] * items[pool] for pool in NAMES)
        + round(stepping.most * stepping.items),
        memory=_memory(device_of(spec.engine)),
        workers=workers,
    )


class _Stepping(NamedTuple):
    """The steps by gradient of a search: how many at most, and what one takes on average."""

    most: int = 0
    seconds: float = 0.0
    items: float = 0.0  # evaluations of an item


def _stepping(
    spec: StudySpec, worker: Worker, trials: int, build: float, scores: float
) -> _Stepping:
    """Return what steps cost, by one of them.

    Args:
        spec: The study.
        worker: Takes the step.
        trials: Of the search.
        build: Seconds of a build.
        scores: Seconds of the scores of the whole search pool.

    Raises:
        MergeError: The study asks for a gradient, and there is none, or the step failed.
    """
    from search.samplers.gradient import LOOK  # imports optuna

    space, pool = worker.builder.space, worker.tasks.pools[SEARCH]
    found = steps(spec, worker, Unheard())
    count = 0 if found is None else found.most(trials)
    if found is None or count < 1:
        return _Stepping()
    point = defaults(space)
    start = Trial(0, "complete", space.recipe(point), baseline=DEFAULTS, params=point, value=0.0)
    step = found.next([start], max(trials, 2))
    assert step is not None
    few = {task: places[:FEW] for task, places in step.look.items()}
    recipe = space.recipe(step.point)
    learns = [Job(recipe, SEARCH, scored=False, learn=batch) for batch in step.batches()]
    spent = [sum(_ran(worker, job).seconds["gradient"] for job in learns) for _ in range(2)]
    look = _ran(worker, Job(recipe, SEARCH, scored=False, look=few)).seconds
    learnt, looked, seen = (sum(map(len, x.values())) for x in (step.learn, step.look, few))
    looks = look["gradient"] / max(seen, 1) * looked + scores
    items = BACKWARD * learnt + (looked + len(pool)) / LOOK
    return _Stepping(count, build + spent[-1] + looks / LOOK, items)


def _two(spec: StudySpec, space: Space) -> tuple[Recipe, Recipe]:
    """Return two recipes that differ: points of the space, or else baselines, simple ones first."""
    points = [defaults(space), space.point(_between)] if space.dimensions else []
    others = sorted(baselines(spec, space), key=lambda one: not one.name.startswith(SIMPLE))
    found = [*map(space.recipe, points), *(one.recipe for one in others)]
    return found[0], next((recipe for recipe in found if recipe != found[0]), found[0])


def _between(knob: Knob, _: Param | None) -> Drawn:
    if knob.choices:
        return knob.choices[0]
    return knob.snapped(knob.low + 0.6 * (knob.high - knob.low))


def _per_item(worker: Worker, recipe: Recipe, pool: str) -> dict[str, float]:
    """Return task -> seconds for one item of a pool."""
    found: dict[str, float] = {}
    for task in worker.tasks.scored_by(pool):
        there = len(worker.tasks.pools[pool].of(task))
        few = min(FEW, worker.spec.engine.batch_size, there)
        _ran(worker, Job(recipe, pool, blocks={task: (there - 1, there)}, first=not found))
        found[task] = (
            _ran(worker, Job(recipe, pool, blocks={task: (0, few)})).seconds["model"] / few
        )
    return found


def _build_seconds(worker: Worker, recipe: Recipe) -> float:
    """Return how long a candidate takes to be made, its routers' training included."""
    spent = _ran(worker, Job(recipe, SEARCH, blocks={})).seconds
    return spent["build"] + spent.get("routers", 0.0)


def _ran(worker: Worker, job: Job) -> Result:
    result = worker.run(job)
    if result.failure is not None:
        raise MergeError(f"the candidate of the dry run failed: {result.failure.reason}")
    return result


def _pool_seconds(tasks: Tasks, pool: str, per_item: Mapping[str, float]) -> float:
    return sum(len(tasks.pools[pool].of(task)) * seconds for task, seconds in per_item.items())


def _seconds(
    counts: Counts,
    each: Mapping[str, float],
    budget: Budget,
    stepping: _Stepping,
    workers: int,
) -> dict[str, float]:
    """Return what parts take; a step is shared by as many workers as it has parts."""
    drawn, sharing = counts.trials - stepping.most, min(workers, PARTS)
    found = {
        "trial": each[SEARCH],
        "step": stepping.seconds,
        "baselines": counts.baselines * each[SEARCH] / workers,
        "search": drawn * each[SEARCH] / workers + stepping.most * stepping.seconds / sharing,
        "select": counts.select * each[SELECT] / workers,
        "report": (counts.report * each[REPORT] + counts.again * each[SELECT]) / workers,
    }
    if budget.hours is not None:
        left = max(0.0, budget.hours * 3600 - found["baselines"])
        found["search"] = min(found["search"], left)
    return {**found, "all": sum(found.values()) - found["trial"] - found["step"]}


def _memory(device: str) -> dict[str, int]:
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"process": peak if sys.platform == "darwin" else peak * 1024}
    if device.startswith("cuda"):
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found

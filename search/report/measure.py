"""Scores of settled trials on the select and the report pool, stored one by one."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from statistics import median

from merge_core.errors import MergeError, NonFiniteError
from search.scoring.pools import NAMES
from search.storage.study_record import Record
from search.trial.failure import InterruptedStudyError
from search.trial.progress import Progress, StopRequested
from search.trial.tasks import Blocks, Tasks
from search.trial.trial import Measurement, Trial
from search.trial.worker import Bench, Job, Result

SELECT, REPORT = NAMES[1:]
LEAST = 2  # items of a task in a part of a pool: one says nothing of its spread


def part_of_report(tasks: Tasks) -> Blocks:
    """Return the first items of each task of the report pool, about as many as select has in all.

    Every task is there in proportion. A pool's order is random, so they are a sample of it.
    """
    select, report = (tasks.pools[pool] for pool in (SELECT, REPORT))
    share = len(select) / len(report)
    sizes = {task: len(report.of(task)) for task in tasks.evaluators}
    return {t: (0, min(n, max(LEAST, round(n * share)))) for t, n in sizes.items()}


def measure(
    record: Record,
    bench: Bench,
    pool: str,
    numbers: Iterable[int],
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    part: Blocks | None = None,
    then: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Score trials on a pool, as far as that is not stored yet; one commit for each.

    Args:
        record: Where the trials are.
        bench: Scores them, several at a time where it can.
        pool: On which one.
        numbers: Of the trials; one that fails there by its own fault is dropped.
        progress: Is told of every trial.
        stop: Asked between two trials.
        part: Places of each task that are enough, the first ones; None: the whole pool.
        then: Called with each trial that was measured now, which may still be live.

    Raises:
        MergeError: A rebuilt candidate does not have the weights that its trial had.
        InterruptedStudyError: One could not be scored, and that is not its own fault.
        StopRequested: ``stop`` said so, between two candidates.
    """
    places = part or whole(bench.tasks, pool)
    known = {t.weights_digest: t.measured[pool] for t in record.trials if _reaches(t, pool, places)}
    todo = [t for t in map(record.trial, dict.fromkeys(numbers)) if not _reaches(t, pool, places)]
    fresh = list(dict.fromkeys(t.weights_digest for t in todo if t.weights_digest not in known))
    firsts = {trial.weights_digest: trial for trial in reversed(todo)}
    waiting, running, spent = deque(fresh), dict[str, Future[Result]](), list[float]()
    for i, trial in enumerate(todo):
        ends, digest = stop(), trial.weights_digest
        if ends and digest not in known and digest not in running:
            raise StopRequested  # what had begun is stored
        left = median(spent) * (len(fresh) - len(spent)) / bench.count if spent else None
        progress.phase("select" if pool == SELECT else "report")
        progress.stage(f"{pool} pool: candidate {i + 1} of {len(todo)}", left)
        if digest not in known:
            while waiting and len(running) < bench.count and not ends:
                next_one = waiting.popleft()
                running[next_one] = _begun(firsts[next_one], bench, pool, part)
            known[digest] = _measured(bench, pool, trial, running.pop(digest).result())
            spent.append(sum(known[digest].seconds.values()))
        record.add_measured(pool, trial.number, known[digest])
        if known[digest].error is not None:
            progress.notice(drop_notice(record.trial(trial.number)))
        then(record.trial(trial.number))


def whole(tasks: Tasks, pool: str) -> Blocks:
    """Return all places of a pool, for each task."""
    return {task: (0, len(tasks.pools[pool].of(task))) for task in tasks.scored_by(pool)}


def _reaches(trial: Trial, pool: str, places: Blocks) -> bool:
    """Return whether a trial has been measured at these places of a pool, or dropped there."""
    found = trial.measured.get(pool)
    if found is None or found.error is not None:
        return found is not None
    return all(len(found.scores.get(task, ())) >= end for task, (_, end) in places.items())


def _begun(trial: Trial, bench: Bench, pool: str, part: Blocks | None) -> Future[Result]:
    return bench.submit(Job(trial.recipe, pool, blocks=part, expected=trial.weights_digest))


def _measured(bench: Bench, pool: str, trial: Trial, result: Result) -> Measurement:
    digest = result.weights_digest
    if digest not in ("", trial.weights_digest):
        raise MergeError(
            f"trial {trial.number} was built again with other weights ({digest}, was "
            f"{trial.weights_digest}); `mergetune reproduce` tells which parent changed"
        )
    if result.failure is not None:
        if not result.failure.candidate:
            raise InterruptedStudyError(f"trial {trial.number} on the {pool} pool", result.failure)
        return Measurement(seconds=result.seconds, error=result.failure.traceback)
    assert result.scores is not None
    bench.check_engine(result)
    try:
        bench.tasks.value(result.scores, pool)
    except NonFiniteError:
        return Measurement(seconds=result.seconds, error=traceback.format_exc())
    return Measurement(result.scores, result.seconds)


def drop_notice(trial: Trial) -> str:
    """Say that a trial was dropped, and why."""
    name = "" if trial.baseline is None else f" ({trial.baseline})"
    return f"Trial {trial.number}{name} was dropped {trial.dropped}"

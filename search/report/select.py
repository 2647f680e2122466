"""After the search: finalists on the select pool, the winner on the report pool. Nothing is chosen
on items that the report uses.

The best search score is too high by design (the luckiest of many), so the finalists are frozen and
scored on fresh items; the winner of that is too high again, if less, so it is measured once more on
items that chose nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from merge_core.errors import MergeError, NonFiniteError
from search.scoring.pareto import front, thinned
from search.scoring.pools import NAMES
from search.space.starting_points import DEFAULTS, PARENT, SIMPLE
from search.storage.study_record import Record
from search.trial.progress import Progress, StopRequested
from search.trial.trial import Measurement, Trial
from search.trial.worker import InterruptedStudyError, Job, Worker

SELECT, REPORT = NAMES[1:]
FRONT = "front:"  # name in the report of a finalist that nobody beats in every objective


@dataclass(frozen=True)
class Selection:
    """Who was chosen, by the numbers of trials.

    Args:
        winner: The finalist with the best select score; with several objectives, the best mean.
        named: Name in the report -> trial; the winner last.
        best_parent: Name of the parent with the best select score.
    """

    winner: int
    named: Mapping[str, int]
    best_parent: str


def select(
    record: Record, worker: Worker, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> Selection:
    """Score finalists and baselines on the select pool and choose, among those not dropped.

    Raises:
        MergeError: No trial is complete, a candidate can no longer be built as it was, or no
            finalist or no parent could be scored.
        InterruptedStudyError: One could not be scored, and that is not its own fault.
        StopRequested: ``stop`` said so, between two candidates.
    """
    done = [trial for trial in record.trials if trial.state == "complete"]
    finalists = _finalists(done, worker.spec.search.finalists)
    named = {t.baseline: t.number for t in done if t.baseline is not None}
    measure(record, worker, SELECT, [*finalists, *named.values()], progress, stop)
    kept = {t.number: t for t in record.trials if SELECT in t.measured and not t.dropped}
    scores = {n: trial.measured[SELECT].scores for n, trial in kept.items()}
    value = {n: worker.tasks.value(found, SELECT)[0] for n, found in scores.items()}
    finalists = _kept(record, finalists)
    named = {name: n for name, n in named.items() if n in kept}
    winner = max(finalists, key=lambda n: (value[n], -n))
    parents = [name for name, n in named.items() if _is_parent(kept[n])]
    simple = [name for name in named if name.startswith(SIMPLE) or name == DEFAULTS]
    chosen = {name: n for name, n in named.items() if name not in simple}
    if simple:
        best = max(simple, key=lambda name: value[named[name]])
        chosen[best] = named[best]
    if not parents:
        why = [f"; {drop_notice(t)}" for t in record.trials if t.dropped and _is_parent(t)]
        raise MergeError(
            "every parent failed as a candidate; there is nothing to compare with" + "".join(why)
        )
    values = {n: worker.tasks.values(scores[n], SELECT) for n in finalists}
    if any(values.values()):  # the others that nobody beats in every objective
        chosen |= {f"{FRONT}{n}": n for n in front(values) if n != winner}
    best_parent = max(parents, key=lambda name: value[named[name]])
    return Selection(winner, {**chosen, "winner": winner}, best_parent)


def choose(
    record: Record, worker: Worker, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> Selection:
    """Select, and measure on the report pool who was chosen; anew where one of them is dropped.

    Raises:
        MergeError, InterruptedStudyError, StopRequested: See ``select`` and ``measure``.
    """
    while True:
        chosen = select(record, worker, progress, stop)
        numbers = chosen.named.values()
        measure(record, worker, REPORT, numbers, progress, stop)
        if not any(record.trial(number).dropped for number in numbers):
            return chosen


def measure(
    record: Record,
    worker: Worker,
    pool: str,
    numbers: Iterable[int],
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Score trials on a pool, as far as that is not stored yet; one commit for each.

    A candidate that fails there by its own fault is dropped.

    Raises:
        MergeError: A rebuilt candidate does not have the weights that its trial had.
        InterruptedStudyError: One could not be scored, and that is not its own fault.
        StopRequested: ``stop`` said so, between two candidates.
    """
    known = {t.weights_digest: t.measured[pool] for t in record.trials if pool in t.measured}
    trials = [record.trial(number) for number in dict.fromkeys(numbers)]
    todo = [trial for trial in trials if pool not in trial.measured]
    fresh = len({trial.weights_digest for trial in todo} - set(known))
    spent: list[float] = []
    for i, trial in enumerate(todo):
        if stop():
            raise StopRequested
        left = median(spent) * (fresh - len(spent)) if spent else None
        progress.stage(f"{pool} pool: candidate {i + 1} of {len(todo)}", left)
        if trial.weights_digest not in known:
            known[trial.weights_digest] = _measured(worker, pool, trial)
            spent.append(sum(known[trial.weights_digest].seconds.values()))
        found = known[trial.weights_digest]
        record.add_measured(pool, trial.number, found)
        if found.error is not None:
            progress.notice(drop_notice(record.trial(trial.number)))


def _measured(worker: Worker, pool: str, trial: Trial) -> Measurement:
    result = worker.run(Job(trial.recipe, pool, expected=trial.weights_digest))
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
    worker.check_engine()
    try:
        worker.tasks.value(result.scores, pool)
    except NonFiniteError:
        return Measurement(seconds=result.seconds, error=traceback.format_exc())
    return Measurement(result.scores, result.seconds)


def drop_notice(trial: Trial) -> str:
    """Say that a trial was dropped, and why."""
    name = "" if trial.baseline is None else f" ({trial.baseline})"
    return f"Trial {trial.number}{name} was dropped {trial.dropped}"


def _is_parent(trial: Trial) -> bool:
    return (trial.baseline or "").startswith(PARENT)


def _kept(record: Record, finalists: list[int]) -> list[int]:
    trials = [record.trial(n) for n in finalists]
    kept = [trial.number for trial in trials if not trial.dropped]
    if not kept:
        raise MergeError(
            f"every finalist was dropped, so there is no winner; the first {trials[0].dropped}; "
            "mend that and run again: they are tried once more"
        )
    return kept


def _finalists(done: list[Trial], count: int) -> list[int]:
    """Return the trials with the best search scores, of equal weights the first only.

    With several objectives: those of the front, if need be thinned.
    """
    if not done:
        raise MergeError("no trial is complete, so there is no winner; see `mergetune trials`")
    first = {trial.weights_digest: trial for trial in reversed(done)}
    trials = {t.number: t for t in sorted(first.values(), key=lambda t: t.number)}
    overall = {n: t.value or 0.0 for n, t in trials.items()}
    if not done[0].values:
        return sorted(trials, key=lambda n: (-overall[n], n))[:count]
    best = {n: trials[n].values for n in front({n: t.values for n, t in trials.items()})}
    return thinned(best, {n: overall[n] for n in best}, count)

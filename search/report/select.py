"""After the search: finalists on the select pool, the winner on the report pool. Nothing is chosen
on items that the report uses.

The best search score is too high by design (the luckiest of many), so the finalists are frozen and
scored on fresh items. The winner is who is best by both pools, weighed as ``scoring.shrinkage``
says; its score there is too high again, if less, so it is measured once more on items that chose
nothing. The other finalists are measured after that on a part of the report pool: so it can be
seen what the search had promised, and what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from merge_core.errors import MergeError
from search.report.finalists import finalists
from search.report.keep_answers import Keeper
from search.report.measure import REPORT, SELECT, drop_notice, measure, part_of_report
from search.scoring.pareto import front
from search.scoring.shrinkage import Weighed, evidence, weighed
from search.space.starting_points import DEFAULTS, PARENT, SIMPLE, UNIFORM
from search.storage.study_record import Record
from search.trial.progress import Progress, StopRequested
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Trial
from search.trial.worker import Bench

FRONT = "front:"  # name in the report of a finalist that nobody beats in every objective


@dataclass(frozen=True)
class Selection:
    """Who was chosen, by the numbers of trials.

    Args:
        winner: The finalist that is best by search and select items, see ``scoring.shrinkage``;
            with several objectives, by their mean.
        named: Name in the report -> trial; the winner last.
        best_parent: Name of the parent that is best by the same rule.
        best_simple: Name of the merge that no search made with the best search score, if any.
        shrunken: Finalist -> what its scores come to; the best search score first.
    """

    winner: int
    named: Mapping[str, int]
    best_parent: str
    best_simple: str | None
    shrunken: Mapping[int, float]


def select(
    record: Record, bench: Bench, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> Selection:
    """Score finalists and parents on the select pool and choose, among those not dropped.

    Raises:
        MergeError: No trial is complete, a candidate can no longer be built as it was, or no
            finalist or no parent could be scored.
        InterruptedStudyError: One could not be scored, and that is not its own fault.
        StopRequested: ``stop`` said so, between two candidates.
    """
    tasks = bench.tasks
    chosen = finalists(record, tasks, bench.spec.search.finalists)
    parents = [t.number for t in record.trials if t.state == "complete" and _is_parent(t)]
    measure(record, bench, SELECT, [*chosen, *parents], progress, stop)
    final, rivals = _kept(record, chosen), _parents(record)
    ranks = _weighed(tasks, final)
    winner = final[_best(ranks)].number
    best_parent = str(rivals[_best(_weighed(tasks, rivals))].baseline)
    named = {str(t.baseline): t for t in record.trials if _is_whole(t) and t.baseline}
    simple = [name for name in named if name in (UNIFORM, DEFAULTS) or name.startswith(SIMPLE)]
    best_simple = max(simple, key=lambda name: named[name].value or 0.0, default=None)
    shown = {n: t.number for n, t in named.items() if n not in simple or n == UNIFORM}
    if best_simple is not None:
        shown[best_simple] = named[best_simple].number
    values = {t.number: tasks.values(t.measured[SELECT].scores, SELECT) for t in final}
    if any(values.values()):  # the others that nobody beats in every objective
        shown |= {f"{FRONT}{n}": n for n in front(values) if n != winner}
    shrunken = {t.number: x for t, x in zip(final, ranks.shrunken, strict=True)}
    return Selection(winner, {**shown, "winner": winner}, best_parent, best_simple, shrunken)


def choose(
    record: Record, bench: Bench, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> Selection:
    """Select, and measure on the report pool who was chosen; anew where one of them is dropped.

    The other finalists are measured there afterwards, on a part of it.

    Raises:
        MergeError, InterruptedStudyError, StopRequested: See ``select`` and ``measure``.
    """
    while True:
        chosen = select(record, bench, progress, stop)
        numbers = chosen.named.values()
        keeper = Keeper(record, bench, progress, chosen.named)
        measure(record, bench, REPORT, numbers, progress, stop, then=keeper.keep)
        if not any(record.trial(number).dropped for number in numbers):
            break
    for trial in map(record.trial, numbers):  # those that an earlier run has measured
        if keeper.lacks(trial) and stop():
            raise StopRequested
        keeper.keep(trial)
    part = part_of_report(bench.tasks)
    measure(record, bench, REPORT, chosen.shrunken, progress, stop, part)
    return chosen


def _weighed(tasks: Tasks, trials: Sequence[Trial]) -> Weighed:
    """Weigh trials by their scores on the select pool, and on search items that all have seen."""
    pools = [SELECT, *([] if tasks.steering else [SEARCH])]  # else search is in another unit
    found = [
        evidence(tasks.aggregate, [tasks.oriented(x, pool) for x in _common(trials, pool)])
        for pool in pools
    ]
    return weighed(*found)


def _common(trials: Sequence[Trial], pool: str) -> list[Mapping[str, Sequence[float]]]:
    """Return the trials' scores of the first items of a pool, as many as each of them has seen."""
    each = [trial.measured[pool].scores for trial in trials]
    seen = {task: min(len(scores[task]) for scores in each) for task in each[0]}
    return [{task: scores[task][:n] for task, n in seen.items()} for scores in each]


def _best(ranks: Weighed) -> int:
    return max(range(len(ranks.order)), key=lambda i: (ranks.order[i], -i))


def _is_parent(trial: Trial) -> bool:
    return (trial.baseline or "").startswith(PARENT)


def _is_whole(trial: Trial) -> bool:
    return trial.state == "complete" and not trial.dropped


def _parents(record: Record) -> list[Trial]:
    kept = [trial for trial in record.trials if _is_parent(trial) and _is_whole(trial)]
    if not kept:
        why = [f"; {drop_notice(t)}" for t in record.trials if t.dropped and _is_parent(t)]
        raise MergeError(
            "every parent failed as a candidate; there is nothing to compare with" + "".join(why)
        )
    return kept


def _kept(record: Record, chosen: Sequence[int]) -> list[Trial]:
    trials = [record.trial(n) for n in chosen]
    kept = [trial for trial in trials if not trial.dropped]
    if not kept:
        raise MergeError(
            f"every finalist was dropped, so there is no winner; the first {trials[0].dropped}; "
            "mend that and run again: they are tried once more"
        )
    return kept

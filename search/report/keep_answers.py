"""Answers of those whom everybody asks about are kept: winner, parents, base, uniform merge.

They are asked when they are measured on the report pool, while they are live, the first items of
each task: a pool's order is random, so these are a random sample. No score changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from merge_core.errors import MergeError
from search.report import ask
from search.report.measure import REPORT
from search.space.starting_points import BASE, PARENT, UNIFORM
from search.storage.said import Kept
from search.storage.study_record import Record
from search.trial.progress import Progress
from search.trial.trial import Trial
from search.trial.worker import Bench

Places = Mapping[str, tuple[int, ...]]  # task -> of the pool


class Keeper:
    """Has candidates asked, and stores what they say.

    Args:
        record: Of the study.
        bench: Its bench.
        progress: Is told.
        named: Name in the report -> trial.
    """

    def __init__(
        self, record: Record, bench: Bench, progress: Progress, named: Mapping[str, int]
    ) -> None:
        self._record, self._bench, self._progress = record, bench, progress
        self._numbers = {number for name, number in named.items() if is_kept(name)}
        self._places, self._failed = first_places(bench), False

    def keep(self, trial: Trial) -> None:
        """Ask a trial, unless it is kept already or is none of those.

        Where it cannot be asked a notice says why, and the next run tries again: a report is not
        lost for it.
        """
        asks = self._missing(trial)
        if not asks:
            return
        self._progress.stage(f"answers of trial {trial.number}")
        try:
            result = ask.ask(self._bench, trial, REPORT, asks)
            self._bench.check_engine(result)
        except MergeError as error:
            self._failed = True
            self._progress.notice(f"no more answers are kept: {error}; another run tries again")
            return
        said = ask.said(result)
        made = {task: said.get(task, []) for task in asks}
        before = kept_by(self._record, trial, REPORT)
        self._record.said.keep_answers(trial.number, REPORT, {**before, **made})

    def lacks(self, trial: Trial) -> bool:
        """Return whether a trial is to be asked."""
        return bool(self._missing(trial))

    def _missing(self, trial: Trial) -> Places:
        """Return what a trial must still be asked."""
        if self._failed or trial.number not in self._numbers or trial.dropped:
            return {}
        kept = kept_by(self._record, trial, REPORT)
        silent = {
            task
            for number in self._numbers
            for task, said in self._record.said.answers(number, REPORT).items()
            if not said
        }
        return {
            task: places
            for task, places in self._places.items()
            if task not in silent and len(kept.get(task, ())) < len(places)
        }


def is_kept(name: str) -> bool:
    """Return whether answers are kept of who has this name in the report."""
    return name in (BASE, UNIFORM, "winner") or name.startswith(PARENT)


def first_places(bench: Bench) -> Places:
    """Return which report items are asked: as many of each task, by the study's ``keep_answers``.

    At least one of each, unless none are kept.
    """
    most, tasks = bench.spec.keep_answers, bench.tasks
    each = max(1, most // len(tasks.evaluators)) if most else 0
    found = {task: len(tasks.pools[REPORT].of(task)) for task in tasks.evaluators}
    return {task: tuple(range(min(each, items))) for task, items in found.items() if each}


def kept_by(record: Record, trial: Trial, pool: str) -> Kept:
    """Return the answers that are kept of a trial, or of another one with the same weights."""
    found: Kept = {}
    for other in record.trials:
        if other.weights_digest == trial.weights_digest:
            found = {**found, **record.said.answers(other.number, pool)}
    return found

"""How long a search is, and why it ended: a function of the stored trials alone.

So a search that is resumed ends where an unbroken one does. A run may be given another budget than
the study file's (``Change``); nothing of that is stored, so the next run goes by the file again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field

from merge_core.errors import ParameterError, Problems
from merge_core.validation import StrictModel, read
from search.spec.sections import Search
from search.trial.known import Known
from search.trial.trial import Trial

RECENT = 20  # trials whose seconds say how long the next ones take
Cause = Literal["trials", "target", "patience", "hours", "gradient"]


@dataclass(frozen=True)
class End:
    """Why a search ended: the key of the budget that ended it, and what happened, in words."""

    by: Cause
    why: str

    @property
    def text(self) -> str:
        """Both, in words; a search by gradient ends by itself, by no key."""
        return self.why if self.by == "gradient" else f"{self.why} (search.{self.by})"


class Change(StrictModel):
    """What a run has instead of the study file's budget.

    Args:
        trials: Instead of ``search.trials``.
        more: So many trials beyond those that are stored, whatever ended the search before: the
            file's ``hours``, ``patience`` and ``target`` do not count.
        hours: Instead of ``search.hours``.
    """

    trials: Annotated[int, Field(ge=1)] | None = None
    more: Annotated[int, Field(ge=1)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None

    @classmethod
    def of(cls, **said: Any) -> Change:
        """Return what the options ``--trials``, ``--more`` and ``--hours`` say; None: nothing.

        Raises:
            ParameterError: One is out of range, or two exclude each other.
        """
        problems: Problems = []
        found = read(cls, said, "", problems)
        if said.get("trials") is not None and said.get("more") is not None:
            problems.append(("trials", "cannot go with --more; name the number of all, or of more"))
        if problems or found is None:
            raise ParameterError("; ".join(f"--{path}: {rule}" for path, rule in problems))
        return found


NO_CHANGE = Change()


@dataclass(frozen=True)
class Budget:
    """When a search ends; trials that are baselines are not counted.

    Args:
        trials: How many are searched in all.
        hours: That all trials may take together, baselines included.
        patience: How many trials in a row may be no better than the best before them.
        target: A search value that is enough.
    """

    trials: int
    hours: float | None = None
    patience: int | None = None
    target: float | None = None

    @classmethod
    def of(cls, search: Search, change: Change, settled: Sequence[Trial]) -> Budget:
        """Return the budget of a run that finds ``settled`` trials stored."""
        found = cls(search.trials, search.hours, search.patience, search.target)
        if change.more is not None:
            found = cls(searched(settled) + change.more)
        if change.trials is not None:
            found = replace(found, trials=change.trials)
        return found if change.hours is None else replace(found, hours=change.hours)

    def end(self, known: Known, waiting: int = 0, workers: int = 1) -> End | None:
        """Return why no more trials are searched after these; None: they are.

        Args:
            known: Settled ones.
            waiting: How many more are begun.
            workers: How many are done at a time, so that hours are those of a clock.
        """
        done = known.searched + waiting
        if done >= self.trials:
            return End("trials", f"{done} trials are searched")
        if self.target is None and self.patience is None and self.hours is None:
            return None
        # means are made when a search has ended
        trials = [trial for trial in known.trials if not trial.is_mean()]
        whole = [t.value for t in trials if t.state == "complete" and t.value is not None]
        best = max(whole, default=-inf)
        if self.target is not None and best >= self.target:
            return End("target", f"a search value of {best:.4f} reaches {self.target:g}")
        if self.patience is not None and since_best(trials) >= self.patience:
            return End("patience", f"{since_best(trials)} trials in a row were no better")
        if self.hours is not None and hours_of(trials, workers) >= self.hours:
            return End("hours", f"{done} trials took {self.hours:g} hours")
        return None


def hours_of(trials: Sequence[Trial], workers: int) -> float:
    """Return how long trials took by the clock, with so many done at a time."""
    return sum(map(seconds, trials)) / 3600 / workers


def searched(trials: Sequence[Trial]) -> int:
    """Return how many trials a sampler asked for."""
    return sum(trial.was_searched() for trial in trials)


def seconds(trial: Trial) -> float:
    """Return what a trial took to build and to score on the search pool."""
    return sum(trial.search.seconds.values())


def seconds_left(
    trials: Sequence[Trial], planned: int, hours: float | None, workers: int = 1
) -> float:
    """Return about how long a search still takes, if neither target nor patience ends it.

    Args:
        trials: Those that are settled.
        planned: How many, baselines included, are still to come.
        hours: That all may take together, if that is limited.
        workers: How many are done at a time.
    """
    left = planned * median([seconds(t) for t in trials[-RECENT:]] or [0.0]) / workers
    if hours is None:
        return left
    return min(left, max(0.0, (hours - hours_of(trials, workers)) * 3600))


def since_best(trials: Sequence[Trial]) -> int:
    """Return how many trials were searched since the best one; failed ones are among them."""
    best, count = None, 0
    for trial in trials:
        if trial.value is not None and (best is None or trial.value > best):
            best, count = trial.value, 0
        else:
            count += trial.baseline is None and trial.state != "unscored"
    return count

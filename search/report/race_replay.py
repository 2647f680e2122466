"""What a race would have done to candidates that were scored whole: the price of racing, known.

Each trial that has seen all items is raced again, look by look, against those before it. What it
has on the whole pool is known, so it is known who would be stopped though better by the margin,
and how far the estimate at each look, which a stopped candidate would be given, is from the truth.
In a study that raced these are the baselines and whoever was not stopped, so of the stops only
those of baselines are news; in one that did not (``race: off``) it is every trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.scoring.intervals import Z95
from search.trial.racing import Judge, Track, foreseen, rivals
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Trial

MOST = 100  # trials that are raced again, of more an even choice


@dataclass(frozen=True)
class AtLook:
    """How good the estimate at one look is, over all trials that were raced again.

    Args:
        items: Seen of all tasks.
        stopped: Trials that would be stopped there.
        bias: Mean of estimate minus what the trial has on the whole pool, in the value's unit.
        rmse: Root of the mean square of that.
        covered: Share whose 95 % interval holds what the trial has.
    """

    items: int
    stopped: int
    bias: float
    rmse: float
    covered: float


@dataclass(frozen=True)
class Replay:
    """What racing would have done to trials that were scored whole.

    Args:
        trials: That were raced again.
        items: They would have seen.
        items_full: They have seen.
        stopped: Of them that would have been stopped.
        wrongly: Of these, better than a rival by the margin: the error of the race.
        missed: Of those stopped, better than the best before them, by however little.
        looks: Before the last one, at which all is seen.
    """

    trials: int
    items: int
    items_full: int
    stopped: int
    wrongly: int
    missed: int
    looks: tuple[AtLook, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        looks = [dict(vars(look)) for look in self.looks]
        return {**vars(self), "looks": looks}


def replayed(tasks: Tasks, track: Track, trials: Sequence[Trial], most: int = MOST) -> Replay:
    """Race trials again that have seen all items.

    Args:
        tasks: Of the study.
        track: Of its race, or of the race that one asks about.
        trials: All of the study, in their order.
        most: Trials to race again at most.
    """
    whole = [t for t in trials if t.state == "complete" and t.same_as is None]
    again = _evenly(whole[1:], most)  # the first one has no rival
    found = [_raced(tasks, track, trial, trials[: trial.number]) for trial in again]
    sizes = [sum(track.prefix(look).values()) for look in track.looks]
    ends = [run.stopped for run in found]
    ended = [(run, run.stopped) for run in found if run.stopped is not None]
    return Replay(
        trials=len(found),
        items=sum(sizes[-1 if end is None else end] for end in ends),
        items_full=len(found) * sizes[-1],
        stopped=len(ended),
        wrongly=sum(run.by_margin for run, _ in ended),
        missed=sum(run.better for run, _ in ended),
        looks=tuple(
            _at_look(sizes[i], ends.count(i), [run.off[i] for run in found])
            for i in range(len(track.looks) - 1 if found else 0)
        ),
    )


@dataclass(frozen=True)
class _Run:
    stopped: int | None  # at which look
    by_margin: bool
    better: bool
    off: Sequence[tuple[float, float]]  # of each look: estimate minus truth, standard error


def _raced(tasks: Tasks, track: Track, trial: Trial, before: Sequence[Trial]) -> _Run:
    against = rivals(before)
    judge = Judge(tasks, track, [t.search.scores for t in against])
    stopped, off = None, []
    for i, look in enumerate(track.looks[:-1]):
        seen = {t: trial.search.scores[t][:n] for t, n in track.prefix(look).items()}
        if stopped is None and judge.beaten(seen) is not None:
            stopped = i
        expected = foreseen(tasks, track, seen, before)
        off.append((expected.value - _value(tasks, trial), expected.stderr))
    best = max(_value(tasks, rival) for rival in against)
    by_margin = judge.beaten(trial.search.scores) is None
    return _Run(stopped, by_margin, _value(tasks, trial) > best, off)


def _value(tasks: Tasks, trial: Trial) -> float:
    contributions = tasks.contributions(trial.search.scores, SEARCH)
    means = {task: float(x.mean()) for task, x in contributions.items()}
    return tasks.aggregate_of(SEARCH).at(means)


def _evenly(trials: Sequence[Trial], most: int) -> list[Trial]:
    if len(trials) <= most:
        return [*trials]
    return [trials[i] for i in np.linspace(0, len(trials) - 1, most).round().astype(int)]


def _at_look(items: int, stopped: int, off: Sequence[tuple[float, float]]) -> AtLook:
    away, errors = np.array(off).T
    return AtLook(
        items=items,
        stopped=stopped,
        bias=float(away.mean()),
        rmse=math.sqrt(float((away**2).mean())),
        covered=float((np.abs(away) <= Z95 * errors).mean()),
    )

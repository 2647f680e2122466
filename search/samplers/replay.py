"""What a study has told a strategy, replayed before every ask, generation by generation.

A process that has replayed a study remembers where it was: the next ask of the same study only adds
what is new. The memory is used if all that it was made of is there unchanged, number by number, so
it is what a replay from the first trial would give.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from hashlib import blake2b
from itertools import takewhile
from operator import is_
from typing import Generic, Protocol, TypeVar

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.ask import STUB
from search.samplers.cube import Vector

OTHERS = ("baseline", "gradient", STUB)  # of trials that no strategy drew
LOCK = threading.RLock()  # a remembered state is advanced by one thread at a time
FLAT = 3  # generations in which all scores are equal, one after the other: nothing to learn here
CONVERGED = 1e-4  # of every knob's range: points of a generation that differ by less are one merge


class Strategy(Protocol):
    """What is learnt from generations: a distribution of points."""

    size: int  # of a generation

    def tell(self, points: Vector, losses: Vector) -> None:
        """Learn from a generation: (size, d) points and (size,) losses."""
        ...

    def mean(self) -> Vector:
        """Return the (d,) mean that generations have moved the distribution to."""
        ...

    def broken(self) -> bool:
        """Return whether its arithmetic has come to an end."""
        ...


S = TypeVar("S", bound=Strategy)


def searched(study: Study, names: Collection[str], all_of_them: bool) -> list[FrozenTrial]:
    """Return the complete trials that a sampler drew, by number; what one drew has these names.

    Args:
        study: Trials with a user attribute of ``OTHERS``, or without parameters, are left out.
        names: Of the knobs.
        all_of_them: Whether a trial must have every knob; else some of them are enough.
    """
    wanted = frozenset(names)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = [trial for trial in complete if _is_drawn(trial, wanted, all_of_them)]
    return sorted(found, key=lambda trial: trial.number)


def _is_drawn(trial: FrozenTrial, wanted: frozenset[str], all_of_them: bool) -> bool:
    if not trial.params or not searched_itself(trial):
        return False
    return trial.params.keys() == wanted if all_of_them else trial.params.keys() <= wanted


class Told:
    """The trials that ``searched`` finds, as points and losses; of a study that grows, read once.

    Args:
        names, all_of_them: See ``searched``.
        points: Makes (n, d) points of trials.
    """

    def __init__(
        self,
        names: Collection[str],
        all_of_them: bool,
        points: Callable[[list[FrozenTrial]], Vector],
    ) -> None:
        self._wanted, self._all_of_them, self._points_of = frozenset(names), all_of_them, points
        self._points, self._losses = np.empty((0, 0)), np.empty(0)
        self._count = 0  # rows of these that are told; the others are room
        self._read: list[FrozenTrial] = []
        self._token = object()

    def of(self, study: Study) -> tuple[Vector, Vector, object]:
        """Return (n, d) points and (n,) losses, which are to be minimised, by number.

        And a token: as long as it is the same, and not None, there is only more than there was.
        """
        trials = study.get_trials(deepcopy=False)  # with states it looks at each of them
        if len(trials) < len(self._read) or not all(map(is_, self._read, trials)):
            self._forget()
        new = trials[len(self._read) :]
        over = [*takewhile(lambda trial: trial.state.is_finished(), new)]
        self._read += over
        if drawn := self._drawn(over):
            self._add(self._points_of(drawn), losses(study, drawn))
        points, found = self._points[: self._count], self._losses[: self._count]
        late = self._drawn(new[len(over) :])  # behind one that still runs
        if not late:
            return points, found, self._token
        rows = self._points_of(late)
        points = np.concatenate([points, rows]) if self._count else rows
        return points, np.concatenate([found, losses(study, late)]), None

    def _drawn(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        return [t for t in complete if _is_drawn(t, self._wanted, self._all_of_them)]

    def _add(self, points: Vector, losses: Vector) -> None:
        """Write rows behind the others, which nobody changes; with twice the room if need be."""
        end = self._count + len(points)
        if end > len(self._losses):
            more, told = np.empty((2 * end, points.shape[1])), np.empty(2 * end)
            if self._count:
                more[: self._count] = self._points[: self._count]
                told[: self._count] = self._losses[: self._count]
            self._points, self._losses = more, told
        self._points[self._count : end], self._losses[self._count : end] = points, losses
        self._count = end

    def _forget(self) -> None:
        self._read, self._count, self._token = [], 0, object()
        self._points, self._losses = np.empty((0, 0)), np.empty(0)


def searched_itself(trial: FrozenTrial) -> bool:
    """Return whether a sampler drew a trial: it is neither a baseline nor a step by gradient."""
    return trial.user_attrs.keys().isdisjoint(OTHERS)


def losses(study: Study, trials: list[FrozenTrial]) -> Vector:
    """Return (n,) values to be minimised."""
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    return sign * np.array([t.values[0] for t in trials], dtype=np.float64)


class Replay(Generic[S]):
    """A strategy after all whole generations that it was told, with its restarts.

    When a generation's points are within ``CONVERGED`` of each other, or after ``FLAT`` generations
    of equal scores, the search starts again with twice the generation, at another place (IPOP:
    Auger & Hansen, CEC 2005; compared with others in arXiv:1207.0206).

    Args:
        start: Makes the strategy of a run: takes its number from 0, and a seed for its place that
            is another for other trials.

    Attributes:
        mean: Of the distribution after the last whole generation, (d,), also where the search has
            started again since; None before the first.
    """

    def __init__(self, start: Callable[[int, int], S]) -> None:
        self._start = start
        self._points, self._losses = np.empty((0, 0)), np.empty(0)
        self._token: object = None
        self._begin()

    def caught_up(self, points: Vector, losses: Vector, token: object = None) -> S:
        """Return the strategy after all trials; the rest of an unfinished generation waits.

        Args:
            points: (n, d), of all trials from the first; NaN for what a trial does not have.
            losses: (n,).
            token: The same as before: they are those of before, and more; see ``Told``.
        """
        used = len(self._losses)
        grown = token is not None and token is self._token and used <= len(losses)
        self._token = token
        if not grown and not (
            np.array_equal(points[:used], self._points, equal_nan=True)
            and np.array_equal(losses[:used], self._losses)
        ):
            self._begin()
            used = 0
        while len(losses) - used >= self._strategy.size:
            group = slice(used, used + self._strategy.size)
            used = group.stop
            self._learn(points[group], losses[group])
        if used != len(self._losses) or not grown:
            self._points, self._losses = points[:used].copy(), losses[:used].copy()
        return self._strategy

    def _begin(self) -> None:
        self._strategy = self._start(0, 0)
        self._runs, self._flat = 0, 0
        self.mean: Vector | None = None

    def _learn(self, points: Vector, losses: Vector) -> None:
        self._flat = self._flat + 1 if losses.min() == losses.max() else 0
        self._strategy.tell(points, losses)
        self.mean = self._strategy.mean()
        spread = np.ptp(np.nan_to_num(points), axis=0)
        converged = spread.any() and spread.max() < CONVERGED  # equal points on a grid: flat
        if converged or self._flat == FLAT or self._strategy.broken():
            digest = blake2b(points.tobytes() + losses.tobytes(), digest_size=4).digest()
            self._runs, self._flat = self._runs + 1, 0
            self._strategy = self._start(self._runs, int.from_bytes(digest, "big"))

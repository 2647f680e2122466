"""A race: a candidate sees the search items look by look, and is stopped where it cannot lead.

The order of the items is the pool's, which is random; looks are after so many of its units
(``scoring/units``), in each of which every task has its share. After a look the claim that the
candidate is better than a rival by the margin (``scoring/claims``) is tested on the same items of
both, by a test that may be looked at as often as one likes (``scoring/sequential``). The rival is
the best trial that has seen all items; with several objectives, each that no other dominates.

All candidates of a study that races are scored in the same blocks, also those without a rival, so
that an item's neighbours, and with them the last bits of its score, are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.protocol import LiveModel
from merge_core.errors import NonFiniteError
from search.scoring.claims import Claim, better
from search.scoring.control_variate import estimated
from search.scoring.intervals import Vector
from search.scoring.pareto import front
from search.scoring.sequential import Form, refuted
from search.scoring.units import Units
from search.spec.study_file import StudySpec
from search.trial.tasks import SEARCH, Blocks, Scores, Tasks
from search.trial.trial import Trial

KEY = "race"  # of what all trials share
LEAST = 2  # items of every task before the first look
COLUMNS = 24  # other trials that an estimate may lean on, beside the baselines
STEP = 1e-6  # of a mean, for the slope of a number by it

Measured = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Race:
    """Whom a candidate is raced against.

    Args:
        rivals: Task -> one score per search item, of trials that have seen them all; none: nobody
            is stopped.
        looks: How many blocks are scored at most; None: all.
    """

    rivals: tuple[Measured, ...] = ()
    looks: int | None = None


NOBODY = Race()


@dataclass(frozen=True)
class Track:
    """How the candidates of one study race; stored when it begins.

    Args:
        margin: What a candidate must be better by, in the unit of a trial's value.
        error: Probability that one which is gets stopped, over all looks together.
        units: Of the search pool; tasks whose score is exact are in none.
        looks: After how many units is looked, the last of them all.
        whole: Task -> how many search items it has, all of them scored in the first block: those
            whose score is exact.
    """

    margin: float
    error: float
    units: Units
    looks: tuple[int, ...]
    whole: Mapping[str, int]

    @classmethod
    def begun(cls, margin: float, error: float, tasks: Tasks, seed: int) -> Track | None:
        """Return the track of a new study; None where no task's score can vary by its items."""
        exact = {t: len(tasks.pools[SEARCH].of(t)) for t in tasks.exact(SEARCH)}
        clusters = {t: ids for t, ids in tasks.clusters(SEARCH).items() if t not in exact}
        if not clusters:
            return None
        units = Units.of(clusters, seed)
        sizes = {task: len(ids) for task, ids in clusters.items()}
        looks = [
            look
            for look in units.looks()
            if all(n >= min(LEAST, sizes[task]) for task, n in units.prefix(look).items())
        ]
        return cls(margin, error, units, tuple(looks), exact)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Track:
        """Return what ``plain`` has written."""
        units = Units({task: tuple(ends) for task, ends in plain["ends"].items()})
        numbers = plain["margin"], plain["error"]
        return cls(*numbers, units, tuple(plain["looks"]), dict(plain["whole"]))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "margin": self.margin,
            "error": self.error,
            "looks": [*self.looks],
            "ends": {task: [*ends] for task, ends in self.units.ends.items()},
            "whole": dict(self.whole),
        }

    def prefix(self, look: int) -> dict[str, int]:
        """Return how many items of each task are seen after ``look`` units."""
        return {**self.units.prefix(look), **self.whole}

    def blocks(self) -> Iterator[Blocks]:
        """Yield what is scored from one look to the next."""
        before: Mapping[str, int] = {}
        for look in self.looks:
            now = self.prefix(look)
            yield {task: (before.get(task, 0), n) for task, n in now.items()}
            before = now

    def looks_at(self, scores: Measured) -> int:
        """Return how many blocks a trial's scores are."""
        seen = {task: len(scores[task]) for task in self.units.ends}
        return next(
            (i for i, look in enumerate(self.looks, 1) if self.units.prefix(look) == seen),
            len(self.looks),
        )


def track_of(spec: StudySpec, tasks: Tasks, about: Mapping[str, Any] | None) -> Track | None:
    """Return the track of a study, as it is stored if it has begun; None where nobody races."""
    if about is not None:
        return Track.of(about[KEY]) if KEY in about else None
    race = spec.search.race
    return None if race is None else Track.begun(race.margin, race.error, tasks, spec.search.seed)


def run(tasks: Tasks, live: LiveModel, track: Track, race: Race) -> Scores:
    """Score the live candidate on the search pool until it has lost, or all is seen.

    Returns:
        See ``Tasks.score``; where it lost, the scores of the first items of every task.

    Raises:
        NonFiniteError, ItemError, EvaluationError: See ``Tasks.score``.
    """
    scores: dict[str, list[float]] = {task: [] for task in tasks.scored_by(SEARCH)}
    judge = Judge(tasks, track, race.rivals)
    for number, blocks in enumerate(track.blocks(), 1):
        for task, found in tasks.score(live, SEARCH, blocks).items():
            odd = sum(not math.isfinite(x) for x in found)
            if odd:
                raise NonFiniteError(f"{task}: {odd} of {len(found)} scores are nan or infinite")
            scores[task] += found
        if number == race.looks or (number < len(track.looks) and judge.beaten(scores) is not None):
            break
    return scores


class Judge:
    """Says whether a candidate has lost to one of some rivals.

    Args:
        tasks: Of the study.
        track: Of the race.
        rivals: See ``Race``.
    """

    def __init__(self, tasks: Tasks, track: Track, rivals: Sequence[Measured]) -> None:
        self._tasks, self._track = tasks, track
        self._rivals = [tasks.contributions(scores, SEARCH) for scores in rivals]
        self._claims = [self._claim(rival) for rival in self._rivals]
        self._spans = tasks.spans(SEARCH)

    def beaten(self, scores: Measured) -> int | None:
        """Return the first rival than which the candidate is not better by the margin, if any."""
        ours = self._tasks.contributions(scores, SEARCH)
        return next((i for i in range(len(self._rivals)) if self._lost(ours, i)), None)

    def _claim(self, rival: Mapping[str, Vector]) -> Claim:
        means = {task: float(x.mean()) for task, x in rival.items()}
        aggregate = self._tasks.aggregate_of(SEARCH)
        return better(aggregate, means, self._track.margin, self._track.whole)

    def _lost(self, ours: Mapping[str, Vector], number: int) -> bool:
        claim, rival = self._claims[number], self._rivals[number]
        error = self._track.error / len(self._rivals) / (1 if claim.one else len(claim.forms) or 1)
        found = (self._refuted(form, ours, rival, error) for form in claim.forms)
        return bool(claim.forms) and (all(found) if claim.one else any(found))

    def _refuted(
        self, form: Form, ours: Mapping[str, Vector], rival: Mapping[str, Vector], error: float
    ) -> bool:
        known = sum(f * ours[t][0] for t, f in form.factors.items() if t in self._track.whole)
        factors = {t: f for t, f in form.factors.items() if t not in self._track.whole}
        rest = Form(factors, form.least - known)
        if not factors:
            return rest.least > 0
        some, whole = ({t: x[t] for t in factors} for x in (ours, rival))
        return refuted(rest, some, whole, self._track.units, self._spans, error)


def rivals(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that candidates are raced against, of those that are settled.

    The best that has seen all items, of equal ones the first; with several objectives the front.
    """
    whole = [trial for trial in trials if trial.state == "complete"]
    values = {t.number: t.values for t in whole if t.values}
    if values:
        first = {trial.values: trial for trial in reversed(whole)}
        best = front({t.number: t.values for t in first.values()})
        return sorted((t for t in whole if t.number in best), key=lambda t: t.number)
    best_one = max(whole, key=lambda t: (t.value or 0.0, -t.number), default=None)
    return [] if best_one is None else [best_one]


def estimate(
    tasks: Tasks, track: Track, scores: Measured, trials: Sequence[Trial]
) -> dict[str, Any]:
    """Return ``value``, ``values`` and ``stderr`` of a stopped candidate on the whole pool.

    Each task's mean by control variates (``scoring/control_variate``); no number is above that of
    the rival that it lost to, so that nobody is better for having been stopped.

    Args:
        tasks: Of the study.
        track: Of the race.
        scores: Of the first items.
        trials: That were settled before it.
    """
    against = rivals(trials)
    lost_to = Judge(tasks, track, [t.search.scores for t in against]).beaten(scores)
    assert lost_to is not None
    expected, rival = foreseen(tasks, track, scores, trials), against[lost_to]
    assert rival.value is not None
    return {
        "value": min(expected.value, rival.value),
        "values": tuple(min(pair) for pair in zip(expected.values, rival.values, strict=True)),
        "stderr": expected.stderr,
    }


@dataclass(frozen=True)
class Foreseen:
    """What a candidate would have on the whole pool: its number, objectives, standard error."""

    value: float
    values: tuple[float, ...]  # empty with one objective
    stderr: float


def foreseen(tasks: Tasks, track: Track, scores: Measured, trials: Sequence[Trial]) -> Foreseen:
    """Return what the scores of the first items, and other trials, let expect of a candidate.

    Args:
        tasks: Of the study.
        track: Of the race.
        scores: Of a prefix of every task.
        trials: That were settled before it.
    """
    found = _means(tasks, track, scores, trials)
    means = {task: mean for task, (mean, _) in found.items()}
    aggregate = tasks.aggregate_of(SEARCH)
    value, squares = aggregate.at(means), 0.0
    for task, (mean, error) in found.items():
        slope = (aggregate.at({**means, task: mean + STEP}) - value) / STEP
        squares += (slope * error) ** 2
    return Foreseen(value, aggregate.values_at(means), math.sqrt(squares))


def _means(
    tasks: Tasks, track: Track, scores: Measured, trials: Sequence[Trial]
) -> dict[str, tuple[float, float]]:
    ours = tasks.contributions(scores, SEARCH)
    others = [tasks.contributions(t.search.scores, SEARCH) for t in _columns(trials)]
    seen = {task: x for task, x in ours.items() if task not in track.whole}
    columns = {task: np.array([x[task] for x in others]) for task in seen}
    exact = {task: (float(ours[task][0]), 0.0) for task in track.whole}
    return {**estimated(seen, columns, track.units), **exact}


def _columns(trials: Sequence[Trial]) -> list[Trial]:
    """Return trials that have seen all items: the baselines, and the last of the others."""
    whole = [t for t in trials if t.state == "complete" and t.same_as is None]
    first = [t for t in whole if not t.was_searched()]
    return [*first, *[t for t in whole if t.was_searched()][-COLUMNS:]]

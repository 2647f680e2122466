"""Who is scored on the select pool: decided by search items alone, stored before it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from merge_core.errors import MergeError
from search.scoring.intervals import Z95
from search.scoring.pareto import front, thinned
from search.space.starting_points import mean_name
from search.storage.kept import Finalists
from search.storage.study_record import Record
from search.trial.budget import searched
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Trial


def finalists(record: Record, tasks: Tasks, most: int) -> tuple[int, ...]:
    """Return the finalists' numbers, best search score first; stored, so that they stay the same.

    They are the trials that may be as good as the best search score: complete ones whose interval
    of the paired difference to it reaches 0, stopped ones whose estimate's interval reaches it (a
    race stops who is not better by a margin, so many are as good); of equal weights the first only,
    at most so many, the best first. The mean of the
    last generation and that of the last steps by gradient are among them in any case: it averages
    the search's luck, so its own search score is no reason to leave it out. With several objectives
    they are the front, if need be thinned.

    Args:
        record: Of the study. After more trials, or with another ``most``, they are chosen anew.
        tasks: Its tasks.
        most: How many there may be.

    Raises:
        MergeError: No trial is complete.
    """
    stored, after = record.finalists, len(record.trials)
    if stored is None or (stored.most, stored.after) != (most, after):
        numbers = _chosen(record.trials, tasks, most)
        stored = Finalists(numbers=numbers, most=most, after=after)
        record.keep_finalists(stored)
    return tuple(stored.numbers)


def _chosen(trials: Sequence[Trial], tasks: Tasks, most: int) -> list[int]:
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        raise MergeError("no trial is complete, so there is no winner; see `mergetune trials`")
    if not done[0].values:
        done = [trial for trial in trials if trial.state in ("complete", "stopped")]
    first = {trial.weights_digest: trial for trial in reversed(done)}
    by_number = {t.number: t for t in sorted(first.values(), key=lambda t: t.number)}
    overall = {n: t.value or 0.0 for n, t in by_number.items()}
    if done[0].values:
        best = {n: by_number[n].values for n in front({n: t.values for n, t in by_number.items()})}
        return thinned(best, {n: overall[n] for n in best}, most)
    ranked = sorted(by_number, key=lambda n: (-overall[n], n))
    means = [first[t.weights_digest].number for t in _means(trials)]
    found = list(dict.fromkeys([ranked[0], *means]))[:most]
    for n in ranked:
        if len(found) == most:
            break
        if n not in found and _reaches(by_number[n], by_number[ranked[0]], tasks):
            found.append(n)
    return sorted(found, key=lambda n: (-overall[n], n))


def _means(trials: Sequence[Trial]) -> list[Trial]:
    """Return the means that the search has ended with, as far as they are complete."""
    of_steps = [t for t in trials if t.gradient is not None and t.gradient.mean]
    of_draws = [t for t in trials if t.baseline == mean_name(searched(trials))]
    return [t for t in (*of_draws, *of_steps[-1:]) if t.state == "complete"]


def _reaches(trial: Trial, best: Trial, tasks: Tasks) -> bool:
    if trial.state == "stopped":
        assert trial.value is not None
        assert trial.stderr is not None
        assert best.value is not None
        return trial.value + Z95 * trial.stderr >= best.value
    ours, theirs = (tasks.oriented(t.search.scores, SEARCH) for t in (trial, best))
    return tasks.aggregate.on_search().difference(ours, theirs).high >= 0

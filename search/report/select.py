"""After the search: finalists on the select pool, the winner on the report pool. Nothing is chosen
on items that the report uses.

The best search score is too high by design (the luckiest of many), so the finalists are frozen and
scored on fresh items; the winner of that is too high again, if less, so it is measured once more on
items that chose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from merge_core.errors import MergeError
from search.scoring.pareto import front, thinned
from search.scoring.pools import NAMES
from search.space.starting_points import DEFAULTS, PARENT, SIMPLE
from search.storage.study_record import Record
from search.trial.progress import Progress
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


def select(record: Record, worker: Worker, progress: Progress) -> Selection:
    """Score finalists and baselines on the select pool and choose.

    Raises:
        MergeError: No trial is complete, or a candidate can no longer be built as it was.
    """
    done = [trial for trial in record.trials if trial.state == "complete"]
    finalists = _finalists(done, worker.spec.search.finalists)
    named = {t.baseline: t.number for t in done if t.baseline is not None}
    measure(record, worker, SELECT, [*finalists, *named.values()], progress)
    scores = {t.number: t.measured[SELECT].scores for t in record.trials if SELECT in t.measured}
    value = {n: worker.tasks.value(found, SELECT)[0] for n, found in scores.items()}
    winner = max(finalists, key=lambda n: (value[n], -n))
    parents = [name for name in named if name.startswith(PARENT)]
    simple = [name for name in named if name.startswith(SIMPLE) or name == DEFAULTS]
    chosen = {name: n for name, n in named.items() if name not in simple}
    if simple:
        best = max(simple, key=lambda name: value[named[name]])
        chosen[best] = named[best]
    if not parents:
        raise MergeError("every parent failed as a candidate; there is nothing to compare with")
    values = {n: worker.tasks.values(scores[n], SELECT) for n in finalists}
    if any(values.values()):  # the others that nobody beats in every objective
        chosen |= {f"{FRONT}{n}": n for n in front(values) if n != winner}
    best_parent = max(parents, key=lambda name: value[named[name]])
    return Selection(winner, {**chosen, "winner": winner}, best_parent)


def measure(
    record: Record, worker: Worker, pool: str, numbers: Iterable[int], progress: Progress
) -> None:
    """Score trials on a pool, as far as that is not stored yet; one commit for each.

    Raises:
        MergeError: A rebuilt candidate does not have the weights that its trial had.
    """
    known = {t.weights_digest: t.measured[pool] for t in record.trials if pool in t.measured}
    trials = [record.trial(number) for number in dict.fromkeys(numbers)]
    todo = [trial for trial in trials if pool not in trial.measured]
    for i, trial in enumerate(todo):
        progress.stage(f"{pool} pool: candidate {i + 1} of {len(todo)}")
        if trial.weights_digest not in known:
            known[trial.weights_digest] = _measured(worker, pool, trial)
        record.add_measured(pool, trial.number, known[trial.weights_digest])


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
        raise MergeError(f"trial {trial.number} on the {pool} pool: {result.failure.text}")
    assert result.scores is not None
    return Measurement(result.scores, result.seconds)


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

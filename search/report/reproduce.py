"""Rebuilds trials from the database alone and compares: the same tensors, the same item scores?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from merge_core.errors import MergeError
from search.storage.study_record import REPORT, Record
from search.trial.racing import Race
from search.trial.tasks import SEARCH, Scores
from search.trial.trial import Trial, kind_of
from search.trial.worker import Job, Worker

Verdict = Literal["identical", "scores differ", "weights differ"]


def reproduce(record: Record, worker: Worker, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rebuild and score trials again; one that raises has a row like any other.

    Args:
        record: The study; its ``about`` is stored.
        worker: Opened on the parents as they are now.
        numbers: Trials to check.

    Yields:
        ``number``, ``verdict``, and where it is not ``identical`` the ``reason`` and the
        ``changed_parents``.

    Raises:
        UnknownNameError: The study has no such trial.
    """
    assert record.about is not None
    changed = worker.builder.changed_parents(record.about)
    for trial in [record.trial(number) for number in numbers]:
        verdict, reason = _checked(worker, trial)
        row: dict[str, Any] = {"number": trial.number, "verdict": verdict}
        if verdict != "identical":
            used = [name for name in changed if name in trial.recipe.references()]
            row |= {"reason": reason, "changed_parents": used}
        yield row


def _checked(worker: Worker, trial: Trial) -> tuple[Verdict, str]:
    if trial.state == "failed":
        return _failed_again(worker, trial, SEARCH, trial.error)
    for pool, found in trial.measured.items():
        if found.error is not None:
            verdict, reason = _failed_again(worker, trial, pool, found.error)
        else:
            verdict, reason = _scored_again(worker, trial, pool, found.scores)
        if reason:
            return verdict, reason
    return "identical", ""


def _scored_again(
    worker: Worker, trial: Trial, pool: str, scores: Mapping[str, Sequence[float]]
) -> tuple[Verdict, str]:
    known = frozenset() if scores else frozenset([trial.weights_digest])  # a step without scores
    looks = worker.track.looks_at(scores) if worker.track and scores and pool == SEARCH else None
    race = Race(looks=looks)
    # of finalists that did not win the first report items
    part = {task: (0, len(x)) for task, x in scores.items()} if pool == REPORT else None
    expected = trial.weights_digest
    job = Job(trial.recipe, pool, blocks=part, expected=expected, known=known, race=race)
    result = worker.run(job)
    digest, failure = result.weights_digest, result.failure
    if failure is not None and not digest:
        return "weights differ", f"cannot be built any more: {failure.reason}"
    if digest != trial.weights_digest:
        return "weights differ", f"weights digest is {digest}, was {trial.weights_digest}"
    if failure is not None:
        return "scores differ", f"the {pool} pool cannot be scored any more: {failure.reason}"
    kept = {task: x for task, x in scores.items() if task not in worker.tasks.measured(pool)}
    return "scores differ", _difference(kept, result.scores or {}, pool)


def _difference(old: Mapping[str, Sequence[float]], new: Scores, pool: str) -> str:
    for task, scores in old.items():
        again = new.get(task, [])
        differ = sum(a != b for a, b in zip(scores, again, strict=False))
        if differ or len(again) != len(scores):
            return f"{task}: {differ} of {len(scores)} items of the {pool} pool score otherwise"
    return ""


def _failed_again(
    worker: Worker, trial: Trial, pool: str, error: str | None
) -> tuple[Verdict, str]:
    """A trial that failed is reproduced if it fails with the same kind of error."""
    kind, again = kind_of(error), _fails_with(worker, trial, pool)
    if again is None:
        return "scores differ", f"failed with {kind} when the study ran, works now"
    same = again == kind
    return ("identical", "") if same else ("scores differ", f"failed with {again}, was {kind}")


def _fails_with(worker: Worker, trial: Trial, pool: str) -> str | None:
    """Return the class of what a trial's recipe raises now, if it raises."""
    result = worker.run(Job(trial.recipe, pool))
    if result.failure is not None:
        return result.failure.kind
    try:
        worker.tasks.value(result.scores or {}, pool)
    except MergeError as error:  # scores that are not finite
        return type(error).__name__
    return None

"""Rebuilds trials from the database alone and compares: the same tensors, the same item scores?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from merge_core.errors import MergeError
from search.report.kept_model import other_tensors
from search.spec.changes import differing
from search.storage.about import REPORT
from search.storage.study_record import Record
from search.trial.environment import ENGINE, asked_in, differences, made_in
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
        ``number`` and ``verdict``; and where that is not ``identical``

        - ``reason``, in words;
        - ``scores``: of each ``pool`` and ``task`` with items that score otherwise how many
          (``differ`` of ``items``), by how much at most (``most``), and in the ``mean`` of these;
          all three null where some have no score any more;
        - ``values``: pool -> ``was``, ``is`` and ``moved`` of the number that the tasks make there;
          none of a trial that was stopped, whose value is an estimate by other trials;
        - ``tensors`` that differ, where the weights do and those of then are kept, see
          ``kept_model``; else null, as a record has one digest for all of them;
        - ``changed_parents`` of the trial: those whose files hold other weights now, and in
          ``changed_tensors`` parent -> those that differ, where the record has sums of them;
        - ``changed_tasks``, whose questions, items or scoring are others, and ``changed_files``:
          configs and tokenizer files; they decide scores beside the weights;
        - ``environment``: ``key``, ``was`` and ``is`` of what is another one than in the run that
          made the trial.

    Raises:
        UnknownNameError: The study has no such trial.
    """
    trials = [record.trial(number) for number in numbers]
    causes = _Causes(record, worker)
    for trial in trials:
        found = _checked(worker, trial, causes.asked(trial))
        row: dict[str, Any] = {"number": trial.number, "verdict": found.verdict}
        yield row if found.verdict == "identical" else row | found.plain() | causes.of(trial, found)


@dataclass
class _Found:
    """What came of one trial; scores that differ are collected pool by pool."""

    verdict: Verdict = "identical"
    reasons: list[str] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    tensors: list[str] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)

    def differs(self, verdict: Verdict, reason: str) -> None:
        """Add a reason; weights that differ are a worse one than scores."""
        self.verdict = "weights differ" if self.verdict == "weights differ" else verdict
        self.reasons.append(reason)

    def plain(self) -> dict[str, Any]:
        """Return what a row says of it."""
        more = {"tensors": self.tensors} if self.verdict == "weights differ" else {}
        reason = "; ".join(self.reasons)
        return {"reason": reason, "scores": self.scores, "values": self.values, **more}


class _Causes:
    """What may be the cause of differences: all that is another one than when the study ran."""

    def __init__(self, record: Record, worker: Worker) -> None:
        assert record.about is not None
        self._about, self._runs = record.about, record.runs
        self._facts, tasks = worker.facts(), worker.tasks.about()
        sums, now = record.tensor_sums, self._facts["tensors"]
        self._parents = {
            name: _unlike(sums.get(name), now[name])
            for name in worker.builder.changed_parents(self._about)
        }
        items = [
            task
            for pool, was in self._about["pools"].items()
            for task in _unlike(was, tasks["pools"].get(pool, {}))
        ]
        others = [x for key in ("tasks", "steering") for x in self._others(key, tasks)]
        self._tasks = [*dict.fromkeys([*others, *items])]
        self._files = self._others("behaviour", self._facts)

    def asked(self, trial: Trial) -> dict[str, int]:
        """Return what the study file asked for when the trial was settled."""
        return asked_in(made_in(self._about, self._runs, trial.number))

    def of(self, trial: Trial, found: _Found) -> dict[str, Any]:
        """Return them for one trial."""
        was = made_in(self._about, self._runs, trial.number)
        now = {**self._facts["environment"], ENGINE: found.engine, **found.asked}
        parents = [x for x in self._parents if x in trial.recipe.references()]
        return {
            "changed_parents": parents,
            "changed_tensors": {x: self._parents[x] for x in parents if self._parents[x]},
            "changed_tasks": self._tasks,
            "changed_files": self._files,
            "environment": [one.plain() for one in differences(was, now)],
        }

    def _others(self, key: str, now: Mapping[str, Any]) -> list[str]:
        return _unlike(self._about.get(key), now.get(key, {}))


def _unlike(was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ; none where nothing was noted."""
    return [] if was is None else differing(was, now)


def _checked(worker: Worker, trial: Trial, asked: Mapping[str, int]) -> _Found:
    """Score a trial again as its runs did, with their threads and batch sizes."""
    found = _Found(asked=asked)
    worker.use(asked)
    if trial.state == "failed":
        _fail_again(worker, trial, SEARCH, trial.error, found)
        return found
    for pool, measured in trial.measured.items():
        worker.use(measured.asked or asked)
        if measured.error is not None:
            _fail_again(worker, trial, pool, measured.error, found)
        else:
            _score_again(worker, trial, pool, measured.scores, found)
        if found.verdict == "weights differ":  # other pools say nothing of the trial's
            break
    return found


def _score_again(
    worker: Worker, trial: Trial, pool: str, scores: Mapping[str, Sequence[float]], found: _Found
) -> None:
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
        found.differs("weights differ", f"cannot be built any more: {failure.reason}")
    elif digest != trial.weights_digest:
        found.tensors = other_tensors(worker, trial)
        found.differs("weights differ", _of_weights(digest, trial, found.tensors))
    elif failure is not None:
        reason = f"the {pool} pool cannot be scored any more: {failure.reason}"
        found.differs("scores differ", reason)
    else:
        found.engine = result.engine or found.engine
        _compare(worker, trial, pool, scores, result.scores or {}, found)


def _of_weights(digest: str, trial: Trial, tensors: Sequence[str] | None) -> str:
    said = f"weights digest is {digest}, was {trial.weights_digest}"
    return said if tensors is None else f"{said}: {len(tensors)} tensors: {', '.join(tensors)}"


def _compare(
    worker: Worker,
    trial: Trial,
    pool: str,
    old: Mapping[str, Sequence[float]],
    new: Scores,
    found: _Found,
) -> None:
    """Add what of a pool's scores differs, and how far the value there moves by it."""
    same = [task for task in old if task not in worker.tasks.measured(pool)]
    rows = [_row(pool, task, old[task], new.get(task, [])) for task in same]
    differ = [(task, row) for task, row in zip(same, rows, strict=True) if row["differ"] != 0]
    for task, row in differ:
        found.scores.append(row)
        found.differs("scores differ", f"{task}: {_said(row)}")
    whole = pool != SEARCH or trial.state == "complete"
    if differ and whole and all(row["differ"] for _, row in differ):
        again = {**old, **{task: new[task] for task in same}}
        was, now = (worker.tasks.value({**scores}, pool)[0] for scores in (old, again))
        found.values[pool] = {"was": was, "is": now, "moved": now - was}
        found.reasons[-1] += f"; the value there moves by {now - was:+.2g}"


def _row(
    pool: str, task: str, old: Sequence[float], new: Sequence[float]
) -> dict[str, str | float | None]:
    """Return what differs in the scores of a task; nothing can be counted of other items."""
    row: dict[str, Any] = {"pool": pool, "task": task, "items": len(old)}
    if len(old) != len(new) or not all(map(math.isfinite, new)):
        return row | {"differ": None, "most": None, "mean": None}
    moves = [abs(a - b) for a, b in zip(old, new, strict=True) if a != b]
    most, mean = (max(moves), sum(moves) / len(moves)) if moves else (0.0, 0.0)
    return row | {"differ": len(moves), "most": most, "mean": mean}


def _said(row: Mapping[str, Any]) -> str:
    items = f"{row['items']} items of the {row['pool']} pool"
    if row["differ"] is None:
        return f"not all of the {items} have a score any more"
    by = f"by {row['most']:.2g} at most, {row['mean']:.2g} in the mean"
    return f"{row['differ']} of {items} score otherwise, {by}"


def _fail_again(worker: Worker, trial: Trial, pool: str, error: str | None, found: _Found) -> None:
    """A trial that failed is reproduced if it fails with the same kind of error."""
    kind, again = kind_of(error), _fails_with(worker, trial, pool)
    if again is None:
        found.differs("scores differ", f"failed with {kind} when the study ran, works now")
    elif again != kind:
        found.differs("scores differ", f"failed with {again}, was {kind}")


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

"""Rebuilds trials from the database alone and compares: the same tensors, the same item scores?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from merge_core.errors import MergeError
from search.storage.study_record import Record, Settled
from search.trial.workbench import Workbench

Verdict = Literal["identical", "scores differ", "weights differ"]


def reproduce(record: Record, bench: Workbench, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rebuild and score trials again.

    Args:
        record: The study; its ``about`` is stored.
        bench: Opened on the parents as they are now.
        numbers: Trials to check.

    Yields:
        ``number``, ``verdict``, and where it is not ``identical`` the ``reason`` and the
        ``changed_parents``.

    Raises:
        UnknownNameError: The study has no such trial.
    """
    assert record.about is not None
    changed = bench.changed_parents(record.about)
    for trial in [record.trial(number) for number in numbers]:
        verdict, reason = _checked(record, bench, trial)
        row: dict[str, Any] = {"number": trial.number, "verdict": verdict}
        if verdict != "identical":
            used = [name for name in changed if name in trial.recipe.references()]
            row |= {"reason": reason, "changed_parents": used}
        yield row


def _checked(record: Record, bench: Workbench, trial: Settled) -> tuple[Verdict, str]:
    if trial.state == "failed":
        return _failed_again(bench, trial)
    try:
        digest = bench.build(trial.recipe)
    except MergeError as error:
        return "weights differ", f"cannot be built any more: {error}"
    if digest != trial.weights_digest:
        return "weights differ", f"weights digest is {digest}, was {trial.weights_digest}"
    stored = {"search": trial.scores}
    for pool in ("select", "report"):
        found = record.measured(pool).get(trial.number)
        if found is not None:
            stored[pool] = found["scores"]
    for pool, scores in stored.items():
        kept = {task: x for task, x in scores.items() if task not in bench.measured(pool)}
        reason = _difference(kept, bench.score(pool), pool)
        if reason:
            return "scores differ", reason
    return "identical", ""


def _difference(old: Any, new: Any, pool: str) -> str:
    for task, scores in old.items():
        again = new.get(task, [])
        differ = sum(a != b for a, b in zip(scores, again, strict=False))
        if differ or len(again) != len(scores):
            return f"{task}: {differ} of {len(scores)} items of the {pool} pool score otherwise"
    return ""


def _failed_again(bench: Workbench, trial: Settled) -> tuple[Verdict, str]:
    """A trial that failed is reproduced if it fails with the same kind of error."""
    kind = _kind(trial.reason)
    try:
        bench.build(trial.recipe)
        bench.value(bench.score("search"), "search")
    except Exception as error:
        again = type(error).__name__
        same = again == kind
        return ("identical", "") if same else ("scores differ", f"failed with {again}, was {kind}")
    return "scores differ", f"failed with {kind} when the study ran, works now"


def _kind(line: str) -> str:
    """Return the class name in the line of a traceback that names the error."""
    return line.split(":", 1)[0].rsplit(".", 1)[-1]

"""Which trial a name on the command line means: a number, a baseline's, or what a report calls it.

Of a study that is not finished ``best`` and the like are the best so far, by search items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from merge_core.errors import MergeError, UnknownNameError, hint
from search.report.summary import Report
from search.space.starting_points import DEFAULTS, PARENT, SIMPLE, UNIFORM
from search.storage.locate import SAMPLE, chosen, winner
from search.storage.study_record import Record
from search.trial.trial import Trial

ROLES = ("best", "winner", "best_parent", "best_simple")


def best_so_far(trials: Iterable[Trial]) -> Trial | None:
    """Return the complete trial with the best search value; of equal ones the first."""
    done = [trial for trial in trials if trial.state == "complete"]
    return max(done, key=lambda trial: trial.value or 0.0, default=None)


def who(record: Record, name: str) -> Trial:
    """Return the trial that a name means.

    Args:
        record: Of the study.
        name: A number; ``best`` (``winner``), ``best_parent``, ``best_simple``; the name of a
            baseline, of a parent also without ``parent:`` or its last part alone.

    Raises:
        UnknownNameError: It means none.
        MergeError: What it means is not there yet.
    """
    if name.isdecimal():
        return record.trial(int(name))
    if name in ROLES:
        return _of_role(record, name)
    named = {trial.baseline: trial for trial in record.trials if trial.baseline is not None}
    for known in (name, PARENT + name):
        if known in named:
            return named[known]
    ends = [known for known in named if known.startswith(PARENT) and _last(known) == name]
    if len(ends) == 1:
        return named[ends[0]]
    raise UnknownNameError(
        f"study {record.name!r} has no trial {name!r}; expected a number, "
        f"{', '.join((*ROLES, *named))}{hint(name, (*ROLES, *named))}"
    )


def called(record: Record, which: str, *, several: bool = True) -> list[Trial]:
    """Return the trials that ``--trial`` names, see ``locate.chosen``, or by a name, see ``who``.

    ``best`` is the winner, which a study must have for it.

    Raises:
        UnknownNameError: It names no trial.
        MergeError: What it means is not there yet.
    """
    if which in ("all", "best") or which.isdecimal() or which.startswith(SAMPLE):
        return chosen(record, which, several=several)
    return [who(record, which)]


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _of_role(record: Record, role: str) -> Trial:
    trials = record.trials
    if record.summary is None:
        found = best_so_far(filter(_RANKED[role], trials))
    elif role in ("best", "winner"):
        found = winner(record)[0]
    else:
        report = Report.from_json(record.summary)
        name = report.best_parent if role == "best_parent" else report.best_simple
        numbers = [one.trial for one in report.candidates if one.name == name]
        found = record.trial(numbers[0]) if numbers else None
    if found is None:
        raise MergeError(
            f"study {record.name!r} has no {role.replace('_', ' ')} yet: none is complete; see "
            "`mergetune trials`"
        )
    return found


def _any(trial: Trial) -> bool:
    return True


def _is_parent(trial: Trial) -> bool:
    return (trial.baseline or "").startswith(PARENT)


def _is_simple(trial: Trial) -> bool:
    name = trial.baseline or ""
    return name in (UNIFORM, DEFAULTS) or name.startswith(SIMPLE)


_RANKED: dict[str, Callable[[Trial], bool]] = {
    "best": _any,
    "winner": _any,
    "best_parent": _is_parent,
    "best_simple": _is_simple,
}

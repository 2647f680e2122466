"""A study's trials as rows: with the values of their knobs, in an order, as a table of any program.

Rows are what ``mergetune trials --json`` prints, see ``Trial.row``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from typing import Any

from merge_core.errors import UnknownNameError, hint
from search.scoring.pareto import front
from search.storage.study_record import Record
from search.trial.trial import Trial

KEYS = ("number", "state", "baseline", "value", "stderr", "items", "seconds")
BEST_FIRST = ("value",)  # of all other keys the least comes first
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one, at a cell's start


@dataclass(frozen=True)
class Listing:
    """Trials to show.

    Args:
        study: Its name.
        trials: In the order in which they are shown.
        of: How many the study has.
        knobs: Names of the knobs whose values are shown.
        hidden: How many knobs more there are.
        front: Numbers of the trials that no other beats in every objective, of several.
        entries: Names of the objectives, where there are several.
    """

    study: str
    trials: tuple[Trial, ...]
    of: int
    knobs: tuple[str, ...]
    hidden: int
    front: frozenset[int] = frozenset()
    entries: tuple[str, ...] = ()

    @classmethod
    def of_record(
        cls,
        record: Record,
        *,
        sort: str | None = None,
        top: int | None = None,
        knobs: Sequence[str] = (),
    ) -> Listing:
        """Return the trials of a study.

        Args:
            record: Of the study.
            sort: A key of ``KEYS`` or a knob; trials without it come last. None: by number.
            top: The first so many; None: all.
            knobs: Patterns (``*`` for anything) of the knobs to show; none: all.

        Raises:
            UnknownNameError: There is no such key, or no knob that a pattern hits.
        """
        names = list(dict.fromkeys(name for trial in record.trials for name in trial.params))
        trials = _in_order(record, sort, names)
        shown = [n for n in names if not knobs or any(fnmatchcase(n, x) for x in knobs)]
        for pattern in knobs:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = hint(pattern, names)
                raise UnknownNameError(
                    f"--knobs: no knob of study {record.name!r} is {pattern!r}; `mergetune trials "
                    f"--json` has all {len(names)}{near}"
                )
        entries = ((record.about or {}).get("score") or {}).get("entries", ())
        several = any(trial.values for trial in trials)
        whole = {t.number: t.values for t in record.trials if t.state == "complete" and t.values}
        return cls(
            record.name,
            tuple(trials[:top]),
            len(trials),
            tuple(shown),
            len(names) - len(shown),
            frozenset(front(whole)),
            tuple(entry["name"] for entry in entries) if several else (),
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the trials as JSON values."""
        more = [{"front": t.number in self.front} if self.front else {} for t in self.trials]
        return [trial.row() | extra for trial, extra in zip(self.trials, more, strict=True)]

    def csv(self) -> str:
        """Return them as comma-separated values: a column for each knob, empty where it is unused.

        A text that a spreadsheet would take for a formula has a ' before it.
        """
        digests = ("weights_digest", "recipe_digest")
        made = StringIO()
        table = csv.writer(made, lineterminator="\n")
        table.writerow(map(_cell, (*KEYS, *self.entries, *digests, *self.knobs)))
        for trial in self.trials:
            row = trial.row()
            cells = [_value(trial, key) for key in KEYS]
            cells += trial.values or [None] * len(self.entries)
            cells += [row[key] for key in digests]
            table.writerow(map(_cell, [*cells, *(trial.params.get(x) for x in self.knobs)]))
        return made.getvalue()


def _in_order(record: Record, sort: str | None, names: Sequence[str]) -> list[Trial]:
    trials = list(record.trials)
    if sort is None:
        return trials
    known = (*KEYS, *names)
    if sort not in known:
        raise UnknownNameError(
            f"--sort: expected {', '.join(KEYS)} or a knob, got {sort!r}{hint(sort, known)}"
        )
    found = {trial.number: _value(trial, sort) for trial in trials}
    there = [trial for trial in trials if found[trial.number] is not None]
    numbers = all(isinstance(found[t.number], int | float) for t in there)
    there.sort(
        key=lambda trial: found[trial.number] if numbers else str(found[trial.number]),
        reverse=sort in BEST_FIRST,
    )
    return [*there, *(trial for trial in trials if found[trial.number] is None)]


def _value(trial: Trial, key: str) -> Any:
    if key == "items":
        return trial.cost if trial.gradient else trial.search.items
    if key == "seconds":
        return round(sum(trial.search.seconds.values()), 3)
    plain: Mapping[str, Any] = {**trial.params, **{x: getattr(trial, x, None) for x in KEYS}}
    return plain.get(key)


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value

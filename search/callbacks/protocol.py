"""What a callback is, and what it is told: plain values, which it may keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Started:
    """A run of a study that has begun, or goes on.

    Args:
        id: Of the study, 16 hexadecimal characters: the same in each of its runs, another one where
            it was started over.
        study: Its name.
        file: What its file says; no passwords.
        results: The folder of its results, which is there.
        trials: Those that are settled, by their numbers; see ``Callback.settled``.
    """

    id: str
    study: str
    file: Mapping[str, Any]
    results: Path
    trials: Sequence[Row]


class Callback(Protocol):
    """Is told of one run, from one thread; each method once, but ``settled`` for each trial.

    What ``started`` raises ends the run before it has begun. After any other error the run tells so
    and goes on without the callback.
    """

    def started(self, study: Started) -> str | None:
        """Hear that a run begins; return a line that the user shall read, if there is one."""
        ...

    def settled(self, trial: Row) -> None:
        """Hear of a trial that is stored.

        Args:
            trial: As ``mergetune trials --json`` has it (``number``, ``state``, ``baseline``,
                ``params``, ``value``, ``values``, ``items``, ...), and ``seconds`` that it took.
        """
        ...

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Hear that the run ends.

        Args:
            summary: What ``results/summary.json`` has; None where the study is not finished.
        """
        ...

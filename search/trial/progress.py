"""Who is told how a study goes."""

from __future__ import annotations

from typing import Protocol

from search.trial.trial import Trial


class StopRequested(Exception):
    """The user wants the run to end; what is measured is stored."""


class Progress(Protocol):
    """Who is told how the run goes."""

    def begin(self, total: int, settled: list[Trial]) -> None:
        """The search starts or resumes; ``total`` trials are planned."""
        ...

    def settled(self, trial: Trial) -> None:
        """One more trial is stored."""
        ...

    def stage(self, text: str) -> None:
        """Something else goes on now."""
        ...

    def notice(self, text: str) -> None:
        """Something that whoever reads the result must know."""
        ...

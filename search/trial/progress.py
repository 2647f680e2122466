"""Who is told how a study goes."""

from __future__ import annotations

from typing import Literal, Protocol

from search.trial.trial import Trial

Phase = Literal[
    "opening", "baselines", "gradient", "drawing", "select", "report", "samples", "writing"
]  # parts of a run, in their order


class StopRequested(Exception):
    """The user wants the run to end; what is measured is stored."""


class Unheard:
    """Progress that nobody reads."""

    def begin(
        self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
    ) -> None:
        """Pass over it, as over all else."""

    def settled(self, trial: Trial) -> None:
        """Pass over it."""

    def phase(self, name: Phase) -> None:
        """Pass over it."""

    def stage(self, text: str, left: float | None = None) -> None:
        """Pass over it."""

    def notice(self, text: str) -> None:
        """Pass over it."""


class Progress(Protocol):
    """Who is told how the run goes."""

    def begin(
        self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
    ) -> None:
        """The search starts or resumes.

        Args:
            total: Trials that are planned.
            settled: Those that are stored.
            hours: That all may take.
            workers: How many are done at a time.
        """
        ...

    def settled(self, trial: Trial) -> None:
        """One more trial is stored."""
        ...

    def phase(self, name: Phase) -> None:
        """Another part of the run begins, or goes on."""
        ...

    def stage(self, text: str, left: float | None = None) -> None:
        """Something else goes on now, for about ``left`` seconds, if that is known."""
        ...

    def notice(self, text: str) -> None:
        """Something that whoever reads the result must know."""
        ...

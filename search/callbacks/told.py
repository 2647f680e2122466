"""A run's progress that callbacks hear of, too: in the order of the trials, none left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from merge_core.errors import MergeError
from search.callbacks.protocol import Callback, Row, Started
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.progress import Phase, Progress
from search.trial.trial import Trial


class Told:
    """Passes on how a run goes, to its progress and to callbacks.

    Args:
        progress: Of the run.
        callbacks: By their names.
        spec: The study.
        record: Where its trials are.

    Attributes:
        summary: Of the study, once the run has finished it.
    """

    def __init__(
        self,
        progress: Progress,
        callbacks: Mapping[str, Callback],
        spec: StudySpec,
        record: Record,
    ) -> None:
        self._progress, self._callbacks = progress, dict(callbacks)
        self._spec, self._record = spec, record
        self._count = 0  # trials that were told
        self._begun = False
        self.summary: Mapping[str, Any] | None = None
        self.phase: Callable[[Phase], None] = progress.phase
        self.stage: Callable[..., None] = progress.stage
        self.notice: Callable[[str], None] = progress.notice

    def begin(
        self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
    ) -> None:
        """Pass it on, and start the callbacks.

        Raises:
            MergeError: One cannot start.
        """
        self._progress.begin(total, settled, hours, workers)
        self._count, self._begun = len(settled), True
        study = Started(
            id=_id(self._record),
            study=self._record.name,
            file=dict(self._spec.data),
            results=self._spec.results,
            trials=[_row(trial) for trial in settled],
        )
        for name, callback in self._callbacks.items():
            try:
                line = callback.started(study)
            except Exception as error:
                raise MergeError(f"--callback {name}: cannot start: {_said(error)}") from error
            if line:
                self.notice(f"{name}: {line}")

    def settled(self, trial: Trial) -> None:
        """Pass it on, with those before it that no progress counts."""
        self._progress.settled(trial)
        self._tell_all()

    def end(self) -> None:
        """Tell the callbacks that the run ends; those that did not start hear nothing."""
        if self._begun:
            self._tell_all()
            self._tell("finished", self.summary)

    def _tell_all(self) -> None:
        for trial in self._record.trials[self._count :]:
            self._tell("settled", _row(trial))
            self._count += 1

    def _tell(self, what: str, value: Any) -> None:
        for name, callback in [*self._callbacks.items()]:
            try:
                getattr(callback, what)(value)
            except Exception as error:
                del self._callbacks[name]
                self.notice(f"--callback {name}: {_said(error)}; it hears no more of this run")


@contextmanager
def telling(
    progress: Progress, callbacks: Mapping[str, Callback], spec: StudySpec, record: Record
) -> Iterator[Told]:
    """Tell callbacks of what happens in this context; arguments as those of ``Told``."""
    told = Told(progress, callbacks, spec, record)
    try:
        yield told
    finally:
        told.end()


def _row(trial: Trial) -> Row:
    seconds = round(math.fsum(trial.search.seconds.values()), 4)
    return {**trial.row(), "seconds": seconds}


def _id(record: Record) -> str:
    first = record.runs[0] if record.runs else {}
    text = f"{record.name}\x1f{first.get('host')}\x1f{first.get('time')}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _said(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"

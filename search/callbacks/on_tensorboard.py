"""TensorBoard: event files in ``results/tensorboard``, a folder in it for each study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.json_text import json_text
from search.callbacks.flat import Best, numbers, of_report
from search.callbacks.protocol import Row, Started

FOLDER = "tensorboard"
VALUE = "trial"  # drawn of every trial: its number


class ToTensorBoard:
    """Writes scalars, a step for each trial; ``tensorboard --logdir results/tensorboard`` shows."""

    def started(self, study: Started) -> str:
        """Open the files, and write what they lack of earlier runs."""
        from torch.utils.tensorboard import SummaryWriter  # imports tensorboard

        folder = study.results / FOLDER / study.id
        written = _written(str(folder)) if folder.is_dir() else 0
        self._best, self._last = Best(), study.trials[-1]["number"] if study.trials else 0
        self._writer: Any = SummaryWriter(str(folder))
        self._writer.add_text("study", f"```json\n{json_text(dict(study.file))}\n```", 0)
        for trial in study.trials:
            self._write(trial, seen=trial["number"] < written)
        return f"tensorboard --logdir {study.results / FOLDER}"

    def settled(self, trial: Row) -> None:
        """Write a trial's numbers."""
        self._write(trial)
        self._writer.flush()

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Write the report's numbers at the last trial, and close the files."""
        for name, value in numbers({} if summary is None else of_report(summary)).items():
            self._writer.add_scalar(name, value, self._last)
        self._writer.close()

    def _write(self, trial: Row, *, seen: bool = False) -> None:
        values = numbers(self._best.values(trial))
        self._last = trial["number"]
        for name, value in {} if seen else {VALUE: self._last, **values}.items():
            self._writer.add_scalar(name, value, self._last)


def _written(folder: str) -> int:
    """Return how many trials the files in a folder have."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Any = EventAccumulator(folder)
    found.Reload()
    steps = found.Scalars(VALUE) if VALUE in found.Tags()["scalars"] else []
    return 1 + max((event.step for event in steps), default=-1)

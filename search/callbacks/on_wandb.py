"""Weights & Biases: a run for each study, which its later runs go on with.

Where it goes, and whether it goes anywhere (``WANDB_MODE=offline``), is said by W&B's own variables
and log-in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from search.callbacks.flat import Best, of_report
from search.callbacks.protocol import Row, Started


class ToWandb:
    """Logs trials, a step each; neither code nor the terminal's text is sent."""

    def started(self, study: Started) -> str | None:
        """Begin a run, or go on with that of the study, and log what it lacks."""
        import wandb

        how = wandb.Settings(console="off", silent=True, save_code=False, disable_git=True)
        self._best = Best()
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mergetune"),
            id=study.id,
            name=study.study,
            resume="allow",
            config=dict(study.file),
            dir=str(study.results),
            settings=how,
        )
        known = self._run.step
        for trial in study.trials:
            self._log(trial, seen=trial["number"] < known)
        where = self._run.dir if self._run.offline else self._run.url
        return None if where is None else str(where)

    def settled(self, trial: Row) -> None:
        """Log a trial."""
        self._log(trial)

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Add the report to the run's summary, and end it."""
        self._run.summary.update({} if summary is None else of_report(summary))
        self._run.finish()

    def _log(self, trial: Row, *, seen: bool = False) -> None:
        values = self._best.values(trial)
        if not seen:
            self._run.log({"trial": trial["number"], **values}, step=trial["number"])

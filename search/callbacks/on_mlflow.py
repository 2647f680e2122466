"""MLflow: an experiment with the study's name, in it a run for the study, in that one a trial each.

Where it goes is said by MLflow's own ``MLFLOW_TRACKING_URI``; without it, to a database here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from search.callbacks.flat import KNOBS, Best, Value, flat, numbers, of_report
from search.callbacks.protocol import Row, Started

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY, TRIAL, PARENT = "mergetune.study", "mergetune.trial", "mlflow.parentRunId"
MOST, LONGEST, LONGEST_NAME = 100, 6000, 250  # of a batch, a parameter's value, a name: MLflow's
_ODD = re.compile(r"[^\w\-. :/]")


class ToMlflow:
    """Logs trials as runs inside the study's run, where the best so far is drawn over trials."""

    def started(self, study: Started) -> str:
        """Find or make experiment and run, and log what they lack."""
        import mlflow

        self._client: MlflowClient = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(study.study)
        made = self._client.create_experiment
        self._experiment: str = found.experiment_id if found else made(study.study)
        before = self._runs(f"tags.`{STUDY}` = '{study.id}'")
        first = next(iter(before), None)
        if first is None:
            self._run = self._new(study.study, {STUDY: study.id})
            self._log(self._run, flat(study.file), {}, 0)
        else:
            self._run = str(first.info.run_id)
            self._client.update_run(self._run, status="RUNNING")
        inside = self._runs(f"tags.`{PARENT}` = '{self._run}'")
        known = {run.data.tags.get(TRIAL) for run in inside if run.info.status != "RUNNING"}
        self._best = Best()
        for trial in study.trials:
            self._trial(trial, seen=str(trial["number"]) in known)
        return f"{mlflow.get_tracking_uri()}: experiment {study.study!r}, run {self._run}"

    def settled(self, trial: Row) -> None:
        """Log a trial."""
        self._trial(trial)

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Log the report, and end the study's run."""
        found = numbers({} if summary is None else of_report(summary))
        self._log(self._run, {}, found, 0)
        self._client.set_terminated(self._run, "KILLED" if summary is None else "FINISHED")

    def _trial(self, trial: Row, *, seen: bool = False) -> None:
        values, number = self._best.values(trial), trial["number"]
        if seen:
            return
        knobs = {name: x for name, x in values.items() if name.startswith(f"{KNOBS}/")}
        rest = {name: x for name, x in values.items() if name not in knobs}
        name = trial["baseline"] or f"trial {number}"
        run = self._new(name, {PARENT: self._run, TRIAL: str(number)})
        self._log(run, {"state": trial["state"], **knobs}, numbers(rest), number)
        self._client.set_terminated(run, "FAILED" if trial["state"] == "failed" else "FINISHED")
        over = {key: x for key, x in numbers(rest).items() if key in ("value", "best")}
        self._log(self._run, {}, over, number)

    def _runs(self, filtered: str) -> list[Any]:
        found: list[Any] = []
        page = None
        while True:
            some = self._client.search_runs([self._experiment], filtered, page_token=page)
            found, page = [*found, *some], some.token
            if not page:
                return found

    def _new(self, name: str, tags: Mapping[str, str]) -> str:
        made = self._client.create_run(self._experiment, tags=dict(tags), run_name=name)
        return str(made.info.run_id)

    def _log(
        self, run: str, params: Mapping[str, Value], metrics: Mapping[str, float], step: int
    ) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        said = [Param(name, str(x)[:LONGEST]) for name, x in _named(params).items()]
        drawn = [Metric(name, x, now, step) for name, x in _named(metrics).items()]
        for some in _batches(said):
            self._client.log_batch(run, params=some)
        for some in _batches(drawn):
            self._client.log_batch(run, metrics=some)


def _batches(found: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(found), MOST):
        yield found[start : start + MOST]


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under names that MLflow takes; those that become one are told apart."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        plain = re.sub(r"\.{2,}|/{2,}", "_", _ODD.sub("_", name))[: LONGEST_NAME - 8].strip("/.")
        other, number = plain or "_", 1
        while other in found:
            number += 1
            other = f"{plain}_{number}"
        found[other] = value
    return found

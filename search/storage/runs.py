"""The runs of a study, as its attribute ``runs`` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict

from merge_core.errors import Problems
from merge_core.validation import StrictModel, read

RUNS = "runs"  # the study attribute


class Run(StrictModel):
    """A run of a study.

    Args:
        time: When it began, UTC.
        host: Where.
        workers: Candidates that were in flight.
        busy: Share of the time that several workers were at work, in [0, 1], once that is known.
        trials: How many there were when it began.
        environment: See ``search/trial/environment.py``; or the number of the run that had it, too.
    """

    model_config = ConfigDict(extra="allow")

    time: str
    host: str
    workers: int = 1
    busy: float | None = None
    trials: int
    environment: dict[str, Any] | int


class _Runs(StrictModel):
    runs: list[Run]


def stored_runs(stored: Any, problems: Problems) -> list[dict[str, Any]]:
    """Return the runs of the attribute, each with its whole environment; add what is wrong."""
    found = read(_Runs, {RUNS: [] if stored is None else stored}, "", problems)
    runs = [] if found is None else [run.model_dump() for run in found.runs]
    for i, run in enumerate(runs):
        at = run["environment"]
        if isinstance(at, int):
            if not 0 <= at < i:
                problems.append((f"{RUNS}[{i}].environment", f"expected a run before it, got {at}"))
                return []
            run["environment"] = runs[at]["environment"]
    return runs


def attribute(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return runs as the attribute holds them: each environment once."""
    environments = [run["environment"] for run in runs]
    first = [environments.index(one) for one in environments]
    return [
        {**run, "environment": run["environment"] if at == i else at}
        for i, (at, run) in enumerate(zip(first, runs, strict=True))
    ]

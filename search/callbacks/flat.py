"""Trials and reports as flat names with values, as dashboards take them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from merge_core.errors import join
from search.callbacks.protocol import Row

Value = bool | int | float | str
KNOBS, OBJECTIVES, REPORT = "knobs", "objectives", "report"


class Best:
    """Knows the best value so far, of trials that have seen all items."""

    def __init__(self) -> None:
        self._best = -math.inf

    def values(self, trial: Row) -> dict[str, Value]:
        """Return what a dashboard draws of a trial, by name; what is not known is left out."""
        if trial["state"] == "complete":
            self._best = max(self._best, trial["value"])
        drawn = {key: trial[key] for key in ("value", "stderr", "seconds", "items", "state")}
        drawn |= {} if self._best == -math.inf else {"best": self._best}
        drawn |= {f"{KNOBS}/{name}": x for name, x in trial["params"].items()}
        drawn |= {f"{OBJECTIVES}/{i}": x for i, x in enumerate(trial.get("values", ()))}
        return {name: x for name, x in drawn.items() if _is_drawn(x)}


def numbers(values: Mapping[str, Value]) -> dict[str, float]:
    """Return those that are numbers; flags are 0 and 1."""
    return {name: float(x) for name, x in values.items() if not isinstance(x, str)}


def of_report(summary: Mapping[str, Any]) -> dict[str, Value]:
    """Return what a report found, by name: each candidate's mean, the winner's differences."""
    found: dict[str, Any] = {f"{REPORT}/winner/trial": summary["winner"]["trial"]}
    for row in summary["candidates"]:
        for key in ("mean", "low", "high"):
            found[f"{REPORT}/{row['name']}/{key}"] = row["report"][key]
    for key, x in summary["winner"].items():
        if key.startswith("minus_") and isinstance(x, Mapping):
            found |= {f"{REPORT}/{key}/{limit}": x.get(limit) for limit in ("mean", "low", "high")}
    return {name: x for name, x in found.items() if _is_drawn(x)}


def flat(data: Any, path: str = "") -> dict[str, Value]:
    """Return plain data by key path; what is not there is left out."""
    if isinstance(data, Mapping):
        pairs = [(join(path, str(key)), x) for key, x in data.items()]
    elif isinstance(data, list | tuple):
        pairs = [(join(path, i), x) for i, x in enumerate(data)]
    else:
        return {} if data is None else {path: data}
    return {name: value for where, x in pairs for name, value in flat(x, where).items()}


def _is_drawn(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)

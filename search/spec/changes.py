"""What may differ where a study goes on: old and new data in, the paths that differ out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError, join, shown
from search.spec.sections import KEEP_ANSWERS, Engine, Items, Search, told_race

SECTIONS: dict[str, type[Items | Search | Engine]] = {
    "items": Items,
    "search": Search,
    "engine": Engine,
}
LENGTH = "how long the search is; settled trials stay"
BY_MACHINE = "where it runs; what that comes to is compared with earlier runs"
ROUNDS = (
    "sums are rounded otherwise, so a few items may score otherwise; `mergetune reproduce` scores "
    "each trial as its run did"
)
MAY_CHANGE = {  # in a study that has begun; path -> what it says, and what becomes of a change
    "name": "how the study is called",
    "storage": "where its database is",
    "keep_answers": "how many answers are kept to be looked at",
    **{f"search.{key}": LENGTH for key in ("trials", "hours", "patience", "target")},
    "search.order": "in which order trials are settled from now on",
    "search.finalists": "who is chosen among when the search is over",
    "engine.cache": "what is kept, not what it is",
    "engine.kernels": "how fast candidates are merged, with the same bits",
    # what these come to is part of the environment (search/trial/environment.py), which may stop a
    # run: a device's name; merges on it (device, pinned) or on the CPU (mapped); vLLM's share
    "engine.device": BY_MACHINE,
    "engine.parents": BY_MACHINE,
    "engine.gpu_memory_utilization": BY_MACHINE,
    "engine.batch_size": ROUNDS,
    "engine.threads": ROUNDS,
}
STAYS = {  # of the engine, and why
    "engine.name": "other programs, other sums",
    "engine.tensor_parallel_size": "devices share out sums, so they decide last bits",
    "engine.max_model_len": "what is longer is cut, or cannot be scored",
}
BASELINE = "baselines."  # before the name of one
ADDED = "it is measured now; settled trials stay"
REPORT = "items.report"
GROWN = "the items that it had stay, and items that chose nothing come to them"
WIDTH = 60  # characters of a value that are told


class ChangedStudyError(MergeError):
    """What a study asks, or where it runs, is not what it began with, so scores would not mix."""


@dataclass(frozen=True)
class Difference:
    """A value of a study file that was another one when the study began, or last went on."""

    path: str
    was: Any
    now: Any

    @property
    def may(self) -> bool:
        """Whether a study that has begun may go on with it."""
        return bool(self.why)

    @property
    def why(self) -> str:
        """What becomes of a change that may be; of another one nothing."""
        if self.path.startswith(BASELINE) and self.was is None:
            return ADDED
        if self.path == REPORT and _is_more(self.was, self.now):
            return GROWN
        return MAY_CHANGE.get(self.path, "")

    def __str__(self) -> str:
        return f"{self.path} was {_said(self.was)}, is {_said(self.now)}"


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], threads: int | None = None
) -> list[Difference]:
    """Return where two studies' plain data differ, by key path.

    A key that says its default is no other than one that is not there.

    Args:
        old: As the study began, or last went on.
        new: As the study file says now.
        threads: That the study began with, which it keeps where a file says nothing.
    """
    return unlike(_told(old, threads), _told(new, threads))


def differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, or that only one of two mappings has."""
    return [key for key in {**was, **now} if was.get(key) != now.get(key)]


def _told(data: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
    """Return a study's data with the defaults of its sections."""
    sections = {
        name: {**model().model_dump(), **(data.get(name) or {})} for name, model in SECTIONS.items()
    }
    sections["search"]["race"] = told_race(sections["search"]["race"])
    if sections["engine"]["threads"] is None:
        sections["engine"]["threads"] = threads
    return {"aggregate": "mean", "keep_answers": KEEP_ANSWERS, **data, **sections}


def unlike(old: Any, new: Any, path: str = "") -> list[Difference]:
    """Return where plain data differ, by key path."""
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = ({} if data is None else data for data in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(join(path, key), old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(join(path, i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:  # true is 1 to Python, not to a reader
        same = old == new and isinstance(old, bool) == isinstance(new, bool)
        return [] if same else [Difference(path, old, new)]
    return [found for where, a, b in pairs for found in unlike(a, b, where)]


def _is_more(was: Any, now: Any) -> bool:
    """Return whether a number of items is larger; "rest" is as many as there are."""
    return type(was) is int and (now == "rest" or (type(now) is int and now > was))


def _said(value: Any) -> str:
    """Return a value in the file's words, cut where it is long."""
    if isinstance(value, list) and not any(isinstance(x, list | dict) for x in value):
        value = f"[{', '.join(map(shown, value))}]"
    else:
        value = "not set" if value is None else shown(value)
    return value if len(value) <= WIDTH else f"{value[: WIDTH - 3]}..."

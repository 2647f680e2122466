"""What may differ where a study goes on: old and new data in, the paths that differ out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.errors import join
from search.spec.sections import Engine, Items, Search, told_race

SECTIONS: dict[str, type[Items | Search | Engine]] = {
    "items": Items,
    "search": Search,
    "engine": Engine,
}
MAY_CHANGE = (  # in a study that has begun: what no score depends on, and no draw of a sampler
    *("name", "storage"),  # by which it was found
    *("search.trials", "search.hours", "search.patience", "search.target"),  # its length
    "search.order",  # of those that are settled from now on
    "search.finalists",  # chosen when the search is over
    *("engine.cache", "engine.kernels"),  # the same bits, sooner or later
)


def changed_paths(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the key paths at which two studies' plain data differ, those that may change aside.

    A key that says its default is no other than one that is not there.
    """
    return _changed(_told(old), _told(new))


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's data with the defaults of its sections."""
    sections = {
        name: {**model().model_dump(), **(data.get(name) or {})} for name, model in SECTIONS.items()
    }
    sections["search"]["race"] = told_race(sections["search"]["race"])
    return {"aggregate": "mean", **data, **sections}


def _changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the key paths at which plain data differ."""
    if path in MAY_CHANGE:
        return []
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = ({} if data is None else data for data in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(join(path, key), old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(join(path, i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:  # true is 1 to Python, not to a reader
        return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [path]
    return [found for where, a, b in pairs for found in _changed(a, b, where)]

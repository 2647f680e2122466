"""Whether all that a study file names is in its folder: what a stranger's bundle must keep to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from evaluators.registry import EVALUATORS
from merge_core.errors import join, shown


def leads_out(path: str) -> bool:
    """Return whether a path may lead out of the folder that it starts at."""
    return (
        path.startswith(("/", "~"))
        or ".." in PurePosixPath(path).parts
        or "\\" in path
        or "://" in path
        or path[1:2] == ":"
    )


def broken_by(data: Mapping[str, Any]) -> str | None:
    """Return which path of a study's plain data leads out of the study's folder, or None.

    Models are not looked at: they lie elsewhere, and are only read.
    """
    for where, path in named(data):
        if not isinstance(path, str) or leads_out(path):
            return f"{where}: expected a path inside the study's folder, got {shown(path)}"
    return None


def named(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the key path and the text of every file and folder that a study's plain data name."""
    for section, key in (("search", "start"), ("search", "prior"), ("engine", "cache")):
        found = data.get(section)
        if isinstance(found, Mapping) and found.get(key) is not None:
            yield f"{section}.{key}", found[key]
    baselines = data.get("baselines")
    if isinstance(baselines, Mapping):
        yield from ((join("baselines", name), file) for name, file in baselines.items())
    score = data.get("score")
    for i, entry in enumerate(score if isinstance(score, list) else ()):
        name = entry.get("evaluator") if isinstance(entry, Mapping) else None
        if name in EVALUATORS.names():
            for key in EVALUATORS.get(name).paths:
                if entry.get(key) is not None:
                    yield f"score[{i}].{key}", entry[key]

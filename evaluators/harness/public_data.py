"""Where a task's documents come from, and what must be said if everybody has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.task import Task

_FORMATS = {"arrow", "csv", "json", "pandas", "parquet", "text", "xml"}  # dataset_path of own files


def notice_of(task: Task) -> str:
    """Return the sentence that a search on a public benchmark owes its reader, or nothing.

    Public is what the hub or an address has; files and code of the user's own are not.
    """
    dataset = public_source(task)
    if not dataset:
        return ""
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return (
        f"The items that steered the search, chose the winner and measured it are different ones, "
        f"but all of the {split or 'evaluation'} split of the public benchmark {dataset}: the "
        f"winner's score there is that of a model tuned on this benchmark, and not to be compared "
        f"with scores of models that were not."
    )


def public_source(task: Task) -> str:
    """Return the name or address of a dataset that is not the user's own, or nothing."""
    named = task.config.dataset_path or getattr(task, "DATASET_PATH", None)
    if not named or task.config.custom_dataset is not None:
        return ""
    if named in _FORMATS:
        return next((x for x in _files(task.config.dataset_kwargs) if "://" in x), "")
    return "" if Path(named).exists() else str(named)


def _files(settings: Any) -> list[str]:
    """Return every text in ``data_files``, however nested."""
    if isinstance(settings, str):
        return [settings]
    if isinstance(settings, dict):
        return [x for value in settings.values() for x in _files(value)]
    return [x for value in settings for x in _files(value)] if isinstance(settings, list) else []

"""A task, group or tag of lm-eval -> an index that has it, without reading 14,000 names in vain."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.harness.task_yaml import refuse_unread
from evaluators.log_control import hushed
from merge_core.errors import EvaluationError, UnknownNameError, hint

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry

Spec = str | Mapping[str, Any]  # a name, or a task or group written out


def name_of(spec: Spec) -> str:
    """Return the name that a task or group has in lm-eval.

    Raises:
        EvaluationError: It is written out and has no name.
    """
    if isinstance(spec, str):
        return spec
    name = spec.get("group", spec.get("task"))
    if not isinstance(name, str) or not name:
        raise EvaluationError(
            "an lm-eval task that is written out needs its name under `task`, a group under "
            f"`group`, as in lm-eval's own files; got keys {', '.join(map(str, spec)) or 'none'}"
        )
    return name


def manager_of(spec: Spec, include_path: Path | None) -> TaskManager:
    """Return lm-eval's task manager that knows a spec and all that it refers to.

    Task files in the folder ``include_path`` win over lm-eval's own of the same name.

    Raises:
        UnknownNameError: No task, group or tag has that name.
        EvaluationError: ``include_path`` is no folder, or has a file with that name that lm-eval
            cannot read.
    """
    if include_path is not None and not include_path.is_dir():
        raise EvaluationError(f"include_path {include_path} is not a folder")
    local = _index(include_path, own=False)
    absent = _missing(spec, local.task_index)
    if not absent:
        return local
    if include_path is not None:
        refuse_unread(absent, include_path)
    own = _own_tasks()
    if not _missing(spec, own.task_index):
        return own
    missing = _missing(spec, {**own.task_index, **local.task_index})
    if missing:
        where = f" in {include_path} or" if include_path else ""
        near = hint(missing, local.all_tasks + own.all_tasks)
        raise UnknownNameError(
            f"no lm-eval task is named {missing!r}{near}; looked{where} among lm-eval's own"
        )
    return _index(include_path, own=True)


def _missing(spec: Spec, index: Mapping[str, Entry]) -> str:
    """Return the first name that an index lacks, of the spec or of a member of its group."""
    if isinstance(spec, str):
        if spec not in index:
            return spec
        spec = index[spec].cfg or {}
    if "group" not in spec:
        return ""
    listed = spec.get("task") or []
    members = listed if isinstance(listed, list) else [listed]
    return next(filter(None, (_missing(_named(x), index) for x in members)), "")


def _named(member: Spec) -> Spec:
    """Return the name that a group's member changes settings of, or the member as written out."""
    if isinstance(member, str) or {"dataset_path", "custom_dataset"} & set(member):
        return member
    inline = "group" in member and isinstance(member.get("task"), list)
    return member if inline else name_of(member)


def _index(folder: Path | None, *, own: bool) -> TaskManager:
    """Index the tasks of a folder, and under them perhaps those that lm-eval ships."""
    from lm_eval.tasks import TaskManager

    with hushed():
        return TaskManager(include_path=folder and str(folder), include_defaults=own)


@functools.cache
def _own_tasks() -> TaskManager:
    """Index the tasks that lm-eval ships: some seconds, so once per process."""
    return _index(None, own=True)

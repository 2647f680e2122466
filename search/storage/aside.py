"""A study that makes room for a new one of its name: kept in the same storage, under another name.

Optuna's storages cannot rename a study, so it is copied, what says that it has begun last, and then
removed. Whenever a process dies, the study is there under its old name, or whole under the new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from search.storage.about import ABOUT
from search.storage.chunks import cut
from search.storage.snapshot import WRITER, Contents
from search.storage.study_record import Record

_NAME = re.compile(r"(.+)\.before-(\d+)", re.DOTALL)


def is_aside(name: str, names: Collection[str]) -> bool:
    """Return whether a study made room for another one of the same storage."""
    found = _NAME.fullmatch(name)
    return found is not None and found[1] in names


def put_aside(record: Record) -> str | None:
    """Put a study away, which this process writes; one without trials is removed.

    Returns:
        What it is called now, or None where it is gone.

    Raises:
        StorageError: It cannot be read or written.
    """
    name = None
    if record.trials:
        number = 1 + max((n for n, _ in _earlier(record)), default=0)
        name = f"{record.name}.before-{number}"
        found = Contents.of(record)
        attributes = {k: x for k, x in found.attributes.items() if k not in (ABOUT, WRITER)}
        about = _called(found.attributes.get(ABOUT), name)
        last = {} if about is None else cut({ABOUT: about})
        record.stored.copy_to(name, cut(attributes), last)
    record.stored.remove()
    return name


def put_aside_before(record: Record) -> list[Record]:
    """Return the studies that have made room for this one, the first of them first.

    Raises:
        StorageError: They cannot be read.
    """
    found = [name for _, name in sorted(_earlier(record))]
    opened = [Record(record.stored.other(x), record.url, record.stored.guard) for x in found]
    return [other for other in opened if other.about is not None]


def _earlier(record: Record) -> list[tuple[int, str]]:
    """Return number and name of each."""
    matches = [_NAME.fullmatch(name) for name in record.stored.names()]
    return [(int(x[2]), x[0]) for x in matches if x is not None and x[1] == record.name]


def _called(about: Any, name: str) -> dict[str, Any] | None:
    """Return what all trials share under another name of the study."""
    if not isinstance(about, Mapping):
        return None
    return {**about, "study": {**about["study"], "name": name}}

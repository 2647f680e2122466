"""Names of lm-eval tasks and files of own questions -> score entries, with a comment each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.errors import ParameterError
from search.draft.models import Paths
from search.draft.questions import guess


@dataclass(frozen=True)
class Asked:
    """What the command line says of tasks: names, files, and a folder of lm-eval task files."""

    tasks: Sequence[str] = ()
    files: Sequence[Path] = ()
    include_path: Path | None = None


@dataclass(frozen=True)
class Entries:
    """Score entries, a comment for each (or none), and how many items each has, if known."""

    plain: list[dict[str, Any]]
    comments: dict[str, str]
    known: list[int | None]


def entries(asked: Asked, paths: Paths) -> Entries:
    """Return a score entry for every task and file.

    Raises:
        ParameterError: There is none.
        EvaluationError: A file cannot be read, or it is not clear what its keys are.
    """
    if not asked.tasks and not asked.files:
        raise ParameterError(
            "a study needs a task: name some by --task (of lm-eval) or --file (JSON lines of yours)"
        )
    found = Entries([], {}, [])
    for task in asked.tasks:
        found.plain.append({"evaluator": "lm_eval", "task": task, **include(asked, paths)})
        found.known.append(None)
    for file in asked.files:
        one = guess(file, paths.file(file))
        found.comments[f"score[{len(found.plain)}]"] = f"guessed: {one.why}"
        found.plain.append(dict(one.entry))
        found.known.append(one.items)
    return found


def include(asked: Asked, paths: Paths) -> dict[str, Any]:
    """Return the key of lm-eval entries that names a folder of task files, if there is one."""
    return {} if asked.include_path is None else {"include_path": paths.file(asked.include_path)}

"""Task files as YAML: bounds on those of strangers, and what is wrong with those that are not read.

lm-eval reads them by a parser that ends the process on a text nested deep enough, and passes over
files that it cannot read without a word, so that their tasks do not exist, or are others of the
same name.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from merge_core.errors import EvaluationError
from merge_core.json_text import read_text

LARGEST = 2**20  # bytes of a task file; lm-eval's own have less than a tenth
MOST = 50_000  # values of a task file, where aliases are followed
DEEPEST = 64  # levels


def check_bounds(file: Path) -> None:
    """Refuse a task file that may take for ever to read, or is no YAML.

    Raises:
        EvaluationError: It is missing, no regular file, not UTF-8, no YAML, or beyond the bounds.
    """
    text = read_text(file, EvaluationError, LARGEST)
    counted = _Counted()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if not counted.fits(event):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise EvaluationError(
                    f"{file}:{line}: a task file has at most {MOST} values, aliases written out, "
                    f"in {DEEPEST} levels"
                )
    except yaml.YAMLError as error:
        raise _no_yaml(file, error) from error


class _Counted:
    """How many values a file has so far, and where in them it is."""

    def __init__(self) -> None:
        self._total = 0
        self._sizes: dict[str, int] = {}  # anchor -> values of what is whole
        self._open: list[tuple[str | None, int]] = []  # anchor, and values before it

    def fits(self, event: yaml.Event) -> bool:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor:
                self._sizes[anchor] = self._total - before
        elif isinstance(event, yaml.AliasEvent):
            self._total += self._sizes.get(str(event.anchor), MOST)  # in itself: without end
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append((event.anchor, self._total))
            self._total += 1
        elif isinstance(event, yaml.ScalarEvent):
            self._total += 1
            self._sizes[str(event.anchor)] = 1
        return self._total <= MOST and len(self._open) <= DEEPEST


def refuse_unread(name: str, folder: Path) -> None:
    """Say what is wrong with a file that mentions a task's name, where no file defines it.

    Raises:
        EvaluationError: There is such a file.
    """
    from lm_eval.tasks._index import TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    mentioned = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    for file in sorted(folder.rglob("*.y*ml")):
        try:
            text = read_text(file, EvaluationError, LARGEST)
        except EvaluationError:
            if file.stem == name:
                raise
            continue
        if not mentioned.search(text):
            continue
        try:
            settings = load_yaml(file, resolve_func=False)
            TaskIndex.process_cfg(settings, file, {})
        except EvaluationError:
            raise
        except Exception as error:  # whatever lm-eval passes over
            raise EvaluationError(
                f"{file}: lm-eval cannot read this task file: {type(error).__name__}: {error}"
            ) from error
        if file.suffix != ".yaml" and name in (settings.get("task"), settings.get("group")):
            raise EvaluationError(
                f"{file}: lm-eval reads only files that end in .yaml, so it knows no {name!r}; "
                "rename the file"
            )


def _no_yaml(file: Path, error: yaml.YAMLError) -> EvaluationError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return EvaluationError(f"{file}{line}: the task file is no YAML: {problem}")

"""Every error that a user can cause: one small tree, each also the builtin one would expect."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 100  # problems of one document that a message lists
LONGEST = 2000  # characters of a line
Problems = list[tuple[str, str]]  # key path and rule, before lines are known


class MergeWarning(UserWarning):
    """Something is otherwise than one would think, and the user may want to mend it."""


def warn(text: str) -> None:
    """Warn of something; the command line prints ``warning: ...`` on stderr."""
    warnings.warn(text, MergeWarning, stacklevel=2)


class MergeError(Exception):
    """Something the user can mend; the command line prints it without a traceback.

    It is one line of at most ``LONGEST`` characters, whatever names and values of others are in it.
    """

    def __str__(self) -> str:
        return _cut(super().__str__().replace("\n", "\\n"))


def _cut(line: str) -> str:
    """Return a line, or where a long one starts, and its end, which says what to do."""
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - 350]} ... ({len(line)} characters) ... {line[-300:]}"


class ParameterError(MergeError, ValueError):
    """A value lies outside the range that its owner declares."""


class ShapeError(MergeError, ValueError):
    """Tensors that should go together do not have the same shape."""


class CheckpointError(MergeError, ValueError):
    """A model folder is incomplete, damaged, or not what the recipe needs."""


class MethodError(MergeError, TypeError):
    """A merge method gives something else than a float32 tensor of its inputs' shape."""


class CandidateError(MergeError):
    """A candidate's own fault: another one may do, so a search goes on after it."""


class NonFiniteError(CandidateError, ArithmeticError):
    """A merged weight or a score is NaN or infinite."""


class UnknownNameError(MergeError, LookupError):
    """No plugin, trial or metric has the name that was asked for."""


class EvaluationError(MergeError, RuntimeError):
    """A task cannot be loaded, or cannot be scored item by item."""


class ItemError(CandidateError, EvaluationError):
    """An item has no score: the model cannot take it, or its answer cannot be scored."""


class NoTargetsError(MergeError, NotImplementedError):
    """A task does not say which answers are right, so its score has no gradient."""


class NoPromptsError(MergeError, NotImplementedError):
    """A task does not say what a model reads before it answers."""


class NoAnswersError(MergeError, NotImplementedError):
    """A task has nothing to show of what a model says, such as a perplexity."""


class TemplateError(MergeError, ValueError):
    """A Jinja template is none, cannot be filled, or not within its bounds.

    Args:
        message: Why.
        line: Of the template, counted from 1, where it is none.
        refused: Whether the template itself refuses what it is given.
    """

    def __init__(self, message: str, line: int | None = None, refused: bool = False) -> None:
        super().__init__(message)
        self.line, self.refused = line, refused


class OutputExistsError(MergeError, FileExistsError):
    """The place to write to is taken and the user did not say that it may be replaced."""


class OutputError(MergeError, OSError):
    """The place to write to cannot be written."""


class StorageError(MergeError, RuntimeError):
    """A study's storage cannot be opened, read or written."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a document: where it stands and which rule it breaks."""

    path: str  # key path in the document, such as ``recipe.models[1].parameters.weight``
    rule: str  # rule, got value, hint: the text after the path
    line: int = 1  # counted from 1


@dataclass(frozen=True)
class Notices:
    """What a file says in vain: allowed, and nothing comes of it."""

    file: str
    found: tuple[Problem, ...] = ()

    def lines(self) -> list[str]:
        """Return a line each, in the file's order: file, line, key path and why."""
        return _listed(self.file, self.found)

    def refuse(self) -> None:
        """Raise them as problems, if there are any.

        Raises:
            DocumentError: There are some.
        """
        if self.found:
            raise DocumentError(self.file, self.found)


class DocumentError(MergeError, ValueError):
    """A YAML document breaks rules; the message lists all of them, one per line.

    Args:
        file: The document's name as the user gave it.
        problems: At least one problem; printed in the order of their lines.
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda p: p.line))
        super().__init__("\n".join(_listed(file, self.problems)))

    def __str__(self) -> str:
        return "\n".join(map(_cut, Exception.__str__(self).split("\n")))


def _listed(file: str, found: Sequence[Problem]) -> list[str]:
    """Return a line each, in the file's order: file, line, key path and rule; of many the first."""
    ordered = sorted(found, key=lambda p: p.line)
    lines = [f"{file}:{p.line}: {p.path}: {p.rule}".replace("\n", "\\n") for p in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        lines.append(f"{file}: and {len(ordered) - SHOWN} more")
    return lines


def hint(name: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` for the nearest known name, or nothing."""
    known = [x for x in known if isinstance(x, str)]  # YAML has keys of other kinds, too
    short = name[:64]  # what is longer is like none
    near = [n for x in (short, short.lower()) for n in difflib.get_close_matches(x, known, n=1)]
    return f", did you mean {near[0]!r}?" if near else ""


def shown(value: Any) -> str:
    """Return a value in the words of the file's language: ``true``, not ``True``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 4096:  # Python does not print the largest
        return f"a whole number of {value.bit_length()} bits"
    return repr(value) if isinstance(value, str) else str(value)


def join(path: str, key: str | int) -> str:
    """Return the key path of a member: ``a`` and ``b`` give ``a.b``, ``a`` and 1 give ``a[1]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)

"""Evaluator plugins as they were written before ``protocol.Evaluator`` was a class to subclass.

Their options are a dataclass whose fields come from ``option``, and their evaluators are any
objects with the attributes of a task. Both are turned into what is written today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any, Literal

from pydantic import Field, create_model

from evaluators.protocol import Evaluator, LiveModel, ScoreVector, TaskFacts
from merge_core.errors import EvaluationError
from merge_core.validation import File, Folder, Number, StrictModel, Texts

_TYPES: dict[str, Any] = {
    "text": str,
    "a file": File,
    "a folder": Folder,
    "a whole number": int,
    "a number": Number,
    "true or false": bool,
    "a text or a list of texts": Texts,
    "a text or a mapping": str | dict[str, Any],
    "a mapping": dict[str, Any],
}
_FACTS = (  # of that time: a later one's name may be theirs for something else
    *("task", "unit", "higher_is_better", "items", "sizes", "reported", "chance", "documents"),
    *("notice", "measured"),
)
_REQUIRED = {"task", "unit", "higher_is_better", "items", "score", "fingerprint"}


def option(kind: str, meaning: str, *, default: Any = MISSING, low: int | None = None) -> Any:
    """Declare a field of a dataclass of options; a new plugin subclasses ``StrictModel`` instead.

    Args:
        kind: ``text``, ``a whole number``, ..., or ``one of a, b``: the texts that are allowed.
        meaning: One line for ``mergetune evaluators``.
        default: Value when the key is absent; without one the key is required.
        low: Least number allowed.
    """
    known = kind.removeprefix("one of ")
    annotation = _TYPES[kind] if known == kind else Literal[tuple(known.split(", "))]
    declared = Field(... if default is MISSING else default, description=meaning, ge=low)
    return field(default=default, metadata={"option": (annotation, declared)})


def as_model(options: type[Any]) -> type[StrictModel]:
    """Return the keys of a dataclass of options as a model; a model is returned as it is.

    Raises:
        EvaluationError: It is neither, or a field of it does not come from ``option``.
    """
    if issubclass(options, StrictModel):
        return options
    declared = fields(options) if is_dataclass(options) else ()
    keys: dict[str, Any] = {f.name: f.metadata.get("option") for f in declared}
    if not is_dataclass(options) or None in keys.values():
        raise EvaluationError(
            f"options {options.__name__}: expected a subclass of merge_core.validation.StrictModel"
        )
    made: type[StrictModel] = create_model(options.__name__, __base__=StrictModel, **keys)
    return made


def as_evaluator(found: Any) -> Any:
    """Return whatever has all attributes of a task as an ``Evaluator``, anything else as it is."""
    if isinstance(found, Evaluator) or not all(hasattr(found, name) for name in _REQUIRED):
        return found
    return _Earlier(found)


class _Earlier(Evaluator):
    def __init__(self, evaluator: Any) -> None:
        names = [name for name in _FACTS if hasattr(evaluator, name)]
        super().__init__(TaskFacts(**{name: getattr(evaluator, name) for name in names}))
        self._evaluator = evaluator

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        found: ScoreVector = self._evaluator.score(model, which)
        self.failures = dict(getattr(self._evaluator, "failures", {}))
        return found

    def fingerprint(self) -> str:
        return str(self._evaluator.fingerprint())

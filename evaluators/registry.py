"""Evaluators by name, and what a plugin declares so that a study file is checked without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_core.errors import Problem, hint
from merge_core.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evaluators.protocol import Evaluator

EVALUATORS = Registry(
    "evaluator", "mergetune.evaluators", {"lm_eval": "evaluators.lm_eval:EVALUATOR"}
)

_TYPES: dict[str, type] = {
    "text": str,
    "a folder": str,
    "a whole number": int,
    "true or false": bool,
}


@dataclass(frozen=True)
class Option:
    """One key that a score entry may have, in the words of the study file."""

    kind: str  # "text", "a folder", "a whole number" or "true or false"
    meaning: str
    low: int | None = None  # least whole number allowed


def option(kind: str, meaning: str, *, default: Any = MISSING, low: int | None = None) -> Any:
    """Declare a field of an options class.

    Args:
        kind: See ``Option.kind``.
        meaning: One line for ``mergetune evaluators``.
        default: Value when the key is absent; without one the key is required.
        low: Least whole number allowed.
    """
    return field(default=default, metadata={"option": Option(kind, meaning, low)})


@dataclass(frozen=True)
class EvaluatorPlugin:
    """A declaration: its module imports neither torch nor the library that does the work.

    ``options`` is a frozen dataclass whose fields are made by ``option``; ``open`` takes an object
    of it, the study file's folder (which relative paths start from) and the tokenizer of the
    models, prepares the items, and returns the evaluator.
    """

    name: str
    meaning: str
    options: type[Any]
    open: Callable[[Any, Path, PreTrainedTokenizerBase], Evaluator]

    def problems(self, values: Mapping[str, object]) -> tuple[Problem, ...]:
        """Return what is wrong with a score entry, one problem per key; ``path`` is the bare key.

        Where nothing is wrong, ``plugin.options(**values)`` is what ``open`` takes.

        Args:
            values: The entry without ``evaluator`` and ``weight``.
        """
        known: dict[str, Field[Any]] = {f.name: f for f in fields(self.options)}
        found = [
            Problem(key, f"unknown key{hint(key, known)}") for key in values if key not in known
        ]
        for name, declared in known.items():
            rule = self._rule_broken(declared, values)
            if rule:
                found.append(Problem(name, rule))
        return tuple(found)

    def describe(self) -> dict[str, Any]:
        """Return name, meaning and options as JSON values, for ``mergetune evaluators --json``."""
        return {
            "name": self.name,
            "meaning": self.meaning,
            "options": [_described(f) for f in fields(self.options)],
        }

    def _rule_broken(self, declared: Field[Any], values: Mapping[str, object]) -> str:
        if declared.name not in values:
            needed = declared.default is MISSING
            return f"required by evaluator {self.name!r}" if needed else ""
        value = values[declared.name]
        wanted: Option = declared.metadata["option"]
        if type(value) is _TYPES[wanted.kind]:  # not isinstance: true is no whole number
            too_low = wanted.low is not None and isinstance(value, int) and value < wanted.low
            return f"must be at least {wanted.low}, got {value}" if too_low else ""
        if value is None and declared.default is None:
            return ""
        return f"expected {wanted.kind}, got {_shown(value)}"


def _described(declared: Field[Any]) -> dict[str, Any]:
    wanted: Option = declared.metadata["option"]
    required = declared.default is MISSING
    return {
        "name": declared.name,
        "kind": wanted.kind,
        "required": required,
        "default": None if required else declared.default,
        "meaning": wanted.meaning,
    }


def _shown(value: object) -> str:
    """Write a value as the study file would: true and null, not True and None."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)

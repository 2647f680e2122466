"""Evaluators by name, and what a plugin declares so that a study file is checked without it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.protocol import Evaluator, Suite
from merge_core.errors import EvaluationError, Problem, hint
from merge_core.plugins import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVALUATORS = Registry(
    "evaluator",
    "mergetune.evaluators",
    {
        "bits_per_byte": "evaluators.text.bits_per_byte:EVALUATOR",
        "cost": "evaluators.cost:EVALUATOR",
        "exact_match": "evaluators.jsonl.exact_match:EVALUATOR",
        "judge": "evaluators.jsonl.judge:EVALUATOR",
        "lm_eval": "evaluators.harness.task:EVALUATOR",
        "multiple_choice": "evaluators.jsonl.multiple_choice:EVALUATOR",
        "python": "evaluators.jsonl.python_function:EVALUATOR",
    },
)

_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "a file": str,
    "a folder": str,
    "a whole number": int,
    "a number": (int, float),
    "true or false": bool,
    "a text or a list of texts": (str, list),
    "a text or a mapping": (str, dict),
    "a mapping": dict,
}


@dataclass(frozen=True)
class Option:
    """One key that a score entry may have, in the words of the study file."""

    kind: str  # one of ``_TYPES``, or "one of a, b": the texts that are allowed
    meaning: str
    low: int | None = None  # least number allowed

    def refusal(self, value: object) -> str:
        """Return the rule that a value breaks and the value, or nothing."""
        allowed = self.kind.removeprefix("one of ").split(", ")
        if self.kind.startswith("one of "):
            near = hint(value, allowed) if isinstance(value, str) else ""
            return "" if value in allowed else f"expected {self.kind}, got {_shown(value)}{near}"
        if not _fits(value, _TYPES[self.kind]):
            return f"expected {self.kind}, got {_shown(value)}"
        too_low = self.low is not None and isinstance(value, int | float) and value < self.low
        return f"must be at least {self.low}, got {value}" if too_low else ""


def option(kind: str, meaning: str, *, default: Any = MISSING, low: int | None = None) -> Any:
    """Declare a field of an options class.

    Args:
        kind: See ``Option.kind``.
        meaning: One line for ``mergetune evaluators``.
        default: Value when the key is absent; without one the key is required.
        low: Least number allowed.
    """
    return field(default=default, metadata={"option": Option(kind, meaning, low)})


@dataclass(frozen=True)
class EvaluatorPlugin:
    """A declaration: its module imports neither torch nor the library that does the work.

    ``options`` is a frozen dataclass whose fields are made by ``option``; ``open`` takes an object
    of it, the study file's folder (which relative paths start from) and the tokenizer of the
    models, prepares the items, and returns the evaluator, or several as a suite.
    """

    name: str
    meaning: str
    options: type[Any]
    open: Callable[[Any, Path, PreTrainedTokenizerBase], Evaluator | Suite]

    def opened(
        self, options: Any, folder: Path, tokenizer: PreTrainedTokenizerBase
    ) -> Evaluator | Suite:
        """Return what ``open`` returns, once it is seen to be an evaluator or several.

        Raises:
            MergeError: ``open`` raised.
            EvaluationError: It is something else.
        """
        found = self.open(options, folder, tokenizer)
        parts = [member for member, _ in found.members] if isinstance(found, Suite) else [found]
        for part in parts:
            if not isinstance(part, Evaluator):
                raise EvaluationError(
                    f"evaluator {self.name!r} opens {type(part).__name__}, which is no subclass of "
                    "evaluators.protocol.Evaluator"
                )
        return found

    def problems(self, values: Mapping[str, object]) -> tuple[Problem, ...]:
        """Return what is wrong with a score entry, one problem per key; ``path`` is the bare key.

        Where nothing is wrong, ``plugin.options(**values)`` is what ``open`` takes.

        Args:
            values: The entry without the keys that every entry may have, such as ``weight``.
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
        if value is None and declared.default is None:
            return ""
        wanted: Option = declared.metadata["option"]
        return wanted.refusal(value)


def _fits(value: object, types: type | tuple[type, ...]) -> bool:
    if type(value) not in (types if isinstance(types, tuple) else (types,)):
        return False  # not isinstance: true is no whole number
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, str) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


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

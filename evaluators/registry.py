"""Evaluators by name, and what a plugin declares so that a study file is checked without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.earlier_plugins import as_evaluator, as_model, option
from evaluators.protocol import Evaluator, Suite, Tokenizer
from merge_core.errors import EvaluationError, Problem, Problems
from merge_core.plugins import Registry
from merge_core.validation import StrictModel, kind_of, read

__all__ = ["EVALUATORS", "EvaluatorPlugin", "option"]

EVALUATORS = Registry(
    "evaluator",
    "mergetune.evaluators",
    {
        "bits_per_byte": "evaluators.text.bits_per_byte:EVALUATOR",
        "cost": "evaluators.cost:EVALUATOR",
        "exact_match": "evaluators.jsonl.exact_match:EVALUATOR",
        "judge": "evaluators.jsonl.judge:EVALUATOR",
        "lm_eval": "evaluators.harness.open:EVALUATOR",
        "multiple_choice": "evaluators.jsonl.multiple_choice:EVALUATOR",
        "python": "evaluators.jsonl.python_function:EVALUATOR",
    },
)


@dataclass(frozen=True)
class EvaluatorPlugin:
    """A declaration: its module imports neither torch nor the library that does the work.

    ``options`` is the keys that a score entry may have, each with its meaning as ``description``;
    ``open`` takes an object of it, the study file's folder (which relative paths start from) and
    the tokenizer of the models, prepares the items, and returns the evaluator, or several as a
    suite.
    """

    name: str
    meaning: str
    options: type[StrictModel]
    open: Callable[[Any, Path, Tokenizer], Evaluator | Suite]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", as_model(self.options))

    def opened(self, options: Any, folder: Path, tokenizer: Tokenizer) -> Evaluator | Suite:
        """Return what ``open`` returns, once it is seen to be an evaluator or several.

        Raises:
            MergeError: ``open`` raised.
            EvaluationError: It is something else.
        """
        found: Evaluator | Suite = as_evaluator(self.open(options, folder, tokenizer))
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
        found: Problems = []
        read(self.options, values, "", found)
        required = f"required by evaluator {self.name!r}"
        return tuple(Problem(p, required if rule == "required" else rule) for p, rule in found)

    def describe(self) -> dict[str, Any]:
        """Return name, meaning and options as JSON values, for ``mergetune evaluators --json``."""
        return {
            "name": self.name,
            "meaning": self.meaning,
            "options": [
                {
                    "name": name,
                    "kind": "text" if kind_of(field) == "a text" else kind_of(field),
                    "required": field.is_required(),
                    "default": None if field.is_required() else field.default,
                    "meaning": field.description,
                }
                for name, field in self.options.model_fields.items()
            ],
        }

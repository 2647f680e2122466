"""Evaluators by name, and what a plugin declares so that a study file is checked without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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


class Input(NamedTuple):
    """A file of the user's that a score entry reads.

    Args:
        key: The option that leads to it.
        file: Where it is.
        data: Whether items come from it; else it says how they are asked.
    """

    key: str
    file: Path
    data: bool = True


@dataclass(frozen=True)
class EvaluatorPlugin:
    """A declaration: its module imports neither torch nor the library that does the work.

    ``options`` is the keys that a score entry may have, each with its meaning as ``description``;
    ``open`` takes an object of it, the study file's folder (which relative paths start from) and
    the tokenizer of the models, prepares the items, and returns the evaluator, or several as a
    suite. ``reads``: the files that ``open`` would read; by default those that options name.
    """

    name: str
    meaning: str
    options: type[StrictModel]
    open: Callable[[Any, Path, Tokenizer], Evaluator | Suite]
    reads: Callable[[Any, Path], Sequence[Input]] | None = None

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

    @property
    def paths(self) -> dict[str, str]:
        """Option that names files -> what it names: ``a file`` or ``a folder``."""
        kinds = {key: kind_of(field) for key, field in self.options.model_fields.items()}
        return {key: kind for key, kind in kinds.items() if kind in ("a file", "a folder")}

    def inputs(self, options: Any, folder: Path) -> list[Input]:
        """Return the user's files that a score entry reads.

        Args:
            options: An object of ``options``.
            folder: Where relative paths start.

        Raises:
            EvaluationError: One is not there.
        """
        if self.reads is not None:
            return list(self.reads(options, folder))
        found = [(key, getattr(options, key)) for key in self.paths]
        places = [(key, folder / str(value)) for key, value in found if value is not None]
        return [Input(key, file) for key, place in places for file in _files_at(place)]

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


def _files_at(place: Path) -> list[Path]:
    """Return a file, or the files that lie in a folder."""
    found = [place] if place.is_file() else sorted(x for x in place.glob("*") if x.is_file())
    if not found:
        raise EvaluationError(f"{place}: no such file; put it there")
    return found

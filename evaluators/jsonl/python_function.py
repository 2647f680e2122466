"""A user's own function scores what the model writes.

    # lengths.py, given on the command line: mergetune run study --plugin lengths.py
    from evaluators.jsonl.python_function import scorer

    @scorer(name="brevity", higher_is_better=False)  # more: unit, bounds=(least, greatest)
    def words(answer: str, item: dict) -> float:
        return len(answer.split())

    # in the study file
    - {evaluator: python, function: brevity, file: questions.jsonl, prompt: "{{ question }}"}

A study file names a function, never a file or a module to import: functions come from ``--plugin``
or from an installed package with an entry point in the group ``mergetune.scorers``.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from evaluators.jsonl.answers import (
    AnswerEvaluator,
    FreeAnswerOptions,
    example_answer,
    known_answer,
)
from evaluators.jsonl.prompts import prepare
from evaluators.protocol import Tokenizer
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from merge_core.errors import EvaluationError
from merge_core.plugins import Registry

SCORERS = Registry("scorer", "mergetune.scorers", {})

Function = Callable[[str, dict[str, Any]], float]


@dataclass(frozen=True)
class Scorer:
    """A function and what its numbers mean; made by ``scorer``, and called like the function."""

    name: str
    function: Function
    unit: str = "score"
    higher_is_better: bool = True
    bounds: tuple[float, float] | None = None

    def __call__(self, answer: str, item: dict[str, Any]) -> float:
        """Return the function's score of one answer to one line of the file; nan: it has none."""
        return self.function(answer, item)


def scorer(
    *,
    name: str,
    unit: str = "score",
    higher_is_better: bool = True,
    bounds: tuple[float, float] | None = None,
) -> Callable[[Function], Scorer]:
    """Declare a function that takes the answer and its line of the file and returns a score.

    Args:
        name: What a study file calls it.
        unit: What a score counts.
        higher_is_better: Whether a larger score is a better one.
        bounds: Least and greatest number that it ever returns, where there are such.
    """
    return lambda function: Scorer(name, function, unit, higher_is_better, bounds)


class PythonOptions(FreeAnswerOptions):
    """The keys of a score entry with ``evaluator: python``."""

    function: str = Field(description="name of a scorer: of a --plugin file, or installed")


class PythonFunction(AnswerEvaluator):
    """See the module, and ``protocol.Evaluator``.

    Raises:
        UnknownNameError: There is no such function.
        EvaluationError: A file, a row or the template does not do.
        ParameterError: There are to be examples, but ``gold`` is missing.
    """

    def __init__(self, options: PythonOptions, folder: Path, tokenizer: Tokenizer) -> None:
        self._options = options
        self._scorer = _declared(options.function)
        prompts = prepare(options, folder, tokenizer, example_answer(options))
        super().__init__(
            prompts,
            options,
            tokenizer,
            name="python",
            unit=self._scorer.unit,
            higher_is_better=self._scorer.higher_is_better,
            settings={"function": options.function, "code": _code(self._scorer)},
            known=[row.values for row in prompts.rows],
            bounds=self._scorer.bounds,
        )

    def values(self, answers: Sequence[tuple[int, str]]) -> list[float]:
        """Call the function for each answer.

        Raises:
            EvaluationError: It raises, or returns something else than nan or a finite number
                inside its bounds.
        """
        return [self._value(i, text) for i, text in answers]

    def right(self, i: int) -> str:
        """Return the answer that the line has under ``gold``, if it has one."""
        return known_answer(self._options, self.rows[i])

    def targets(self, which: Sequence[int]) -> list[Target]:
        """There are none. See ``protocol.Evaluator.targets``.

        Raises:
            NoTargetsError: Always.
        """
        raise self.no_targets(
            f"the scorer {self._scorer.name!r} judges what the model writes; no answer is the "
            "right one"
        )

    def _value(self, i: int, answer: str) -> float:
        row = self.rows[i]
        called = f"{row.place}: scorer {self._scorer.name!r}"
        try:
            value = self._scorer(answer, copy.deepcopy(row.values))
        except Exception as error:  # whatever the user's function does
            raise EvaluationError(f"{called}: {type(error).__name__}: {error}") from error
        if not isinstance(value, (numbers.Real, np.bool_)) or math.isinf(value):
            raise EvaluationError(f"{called}: expected a finite number or nan, got {value!r}")
        low, high = self._scorer.bounds or (-math.inf, math.inf)
        if value < low or value > high:
            wanted = f"a number from {low:g} to {high:g}, its `bounds`"
            raise EvaluationError(f"{called}: expected {wanted}, got {value!r}")
        if math.isnan(value):
            self.failures[self.items[i].id] = f"{called} gave nan"
        return float(value)


def _declared(name: str) -> Scorer:
    found = SCORERS.get(name)
    if not callable(found):
        raise EvaluationError(f"scorer {name!r} must be a function, got {found!r}")
    return found if isinstance(found, Scorer) else Scorer(name, found)


def _code(found: Scorer) -> str:
    """Hash the file that a function stands in; what it imports is not covered."""
    try:
        file = inspect.getsourcefile(found.function)
    except TypeError:  # a callable object, or one made in C
        file = None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


EVALUATOR = EvaluatorPlugin(
    name="python",
    meaning="a function of yours on what the model writes; see --plugin",
    options=PythonOptions,
    open=PythonFunction,
)

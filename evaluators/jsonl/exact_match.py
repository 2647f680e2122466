"""A user's own questions in JSON lines, answered in words: is the answer the right one?

    evaluator: exact_match
    file: questions.jsonl        # {"question": "2+2?", "answer": "4"}, or a list of right answers
    prompt: "Question: {{ question }}\\nAnswer:"
    answer_regex: "(-?[0-9.,]+)"
    numeric: true

``metric: f1`` is graded (shared words, see ``compare.token_f1``); with ``steer: f1`` it steers
the search, and the report states ``metric``. Plain lm-eval's ``exact_match`` compares to the last
space; here space at the ends is ignored unless ``ignore_space: false``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from evaluators.answer import listed
from evaluators.json_rows import Row, written
from evaluators.jsonl.answers import AnswerEvaluator, GenerationOptions
from evaluators.jsonl.compare import finder, number_of, token_f1
from evaluators.jsonl.prompts import gap, prepare
from evaluators.protocol import Tokenizer
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from evaluators.thinking import UNKNOWN
from merge_core.errors import EvaluationError, ParameterError


class ExactMatchOptions(GenerationOptions):
    """The keys of a score entry with ``evaluator: exact_match``."""

    answer: str = Field("answer", description="the key of the right answer, or of a list")
    answer_regex: str | None = Field(
        None, description="what to compare: its first match in the answer, the first group"
    )
    metric: Literal["exact", "f1"] = Field("exact", description="equal or not, or shared words")
    numeric: bool = Field(False, description="compare as numbers: 1,000 = 1000.0")
    ignore_case: bool = Field(False, description="A equals a")
    ignore_space: bool = Field(True, description="space at the ends is nothing")


class ExactMatch(AnswerEvaluator):
    """See the module, and ``protocol.Evaluator``.

    Raises:
        EvaluationError: A file, a row or the template does not do.
        ParameterError: ``answer_regex`` is no regular expression, or ``numeric`` goes with ``f1``.
    """

    def __init__(self, options: ExactMatchOptions, folder: Path, tokenizer: Tokenizer) -> None:
        if options.numeric and options.metric == "f1":
            raise ParameterError(
                "`numeric: true` compares whole numbers, so `metric` must be exact"
            )
        self._options = options
        self._cut = finder(options.answer_regex, "answer_regex")
        prompts = prepare(options, folder, tokenizer, lambda row: _right_answers(row, options)[0])
        self._right = [_right_answers(row, options) for row in prompts.rows]
        names = {"metric", "answer_regex", "numeric", "ignore_case", "ignore_space"}
        super().__init__(
            prompts,
            options,
            tokenizer,
            name="exact_match",
            unit="exact_match" if options.metric == "exact" else "f1",
            settings=options.model_dump(include=names),
            known=self._right,
            bounds=(0.0, 1.0),
            binary=options.metric == "exact",
        )

    def values(self, answers: Sequence[tuple[int, str]]) -> list[float]:
        """Compare answers to the right ones."""
        return [self._value(self._cut(text), self._right[i]) for i, text in answers]

    def right(self, i: int) -> str:
        """Return an item's right answers."""
        return listed(self._right[i])

    def targets(self, which: Sequence[int]) -> list[Target]:
        """Return right answers as they would be written. See ``protocol.Evaluator.targets``."""
        self.check_positions(which)
        if self._options.think_end_token is not None:
            raise self.no_targets(UNKNOWN)
        return [self._target(i) for i in which]

    def _target(self, i: int) -> Target:
        text = self.texts[i]
        before = gap(self._options, text)
        return Target.written(text, [f"{before}{x}{self.ending}" for x in self._right[i]])

    def _value(self, answer: str | None, right: Sequence[str]) -> float:
        if answer is None:
            return 0.0
        if self._options.metric == "f1":
            return max(token_f1(answer, x) for x in right)
        if self._options.numeric:
            number = number_of(answer)
            return float(number is not None and number in map(number_of, right))
        return float(self._alike(answer) in map(self._alike, right))

    def _alike(self, text: str) -> str:
        text = " ".join(text.split()) if self._options.ignore_space else text
        return text.casefold() if self._options.ignore_case else text


def _right_answers(row: Row, options: ExactMatchOptions) -> tuple[str, ...]:
    value = row.value(options.answer)
    listed = value if isinstance(value, list) else [value]
    place = f"{row.place}: {options.answer}"
    if not listed:
        raise EvaluationError(f"{place}: expected at least one right answer, got an empty list")
    texts = tuple(written(x, place) for x in listed)
    for text in texts:
        if options.numeric and number_of(text) is None:
            raise EvaluationError(f"{place}: `numeric: true` needs a number, got {text!r}")
    return texts


EVALUATOR = EvaluatorPlugin(
    name="exact_match",
    meaning="your own questions in JSON lines, answered in words",
    options=ExactMatchOptions,
    open=ExactMatch,
)

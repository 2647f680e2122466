"""A user's own multiple-choice questions in JSON lines: which choice is the likeliest?

    evaluator: multiple_choice
    file: questions.jsonl        # {"question": "2+2?", "options": ["3", "4"], "answer": "B"}
    prompt: "Question: {{ question }}\\nAnswer:"
    choices: options             # or the keys of one choice each: [a, b, c, d]

The metrics ``acc``, ``acc_norm`` and ``acc_bytes`` are lm-eval's of these names: the likeliest
choice is the right one; by likelihood per character; per UTF-8 byte. Two are graded, for a search
that needs more than right or wrong (``steer``): ``probability`` of the right choice among the
choices; ``margin``, its log-probability minus that of the best other one, in nats, above 0 where
``acc`` is 1. Beware of a mean of several tasks' margins, which have no bounds: see the README.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from evaluators.answer import Answer
from evaluators.choice_scores import GRADED, likeliest, mean_sized
from evaluators.engines.context_window import check_fit, count_tokens, unfit, window_of
from evaluators.json_rows import Row, written
from evaluators.jsonl.prompts import PromptOptions, gap, prepare
from evaluators.protocol import Evaluator, LiveModel, ScoreVector, Tokenizer, fingerprint
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Choice, Target
from evaluators.thinking import TemplateArgs, refuse_thoughts
from merge_core.errors import EvaluationError
from merge_core.validation import Texts

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MultipleChoiceOptions(PromptOptions):
    """The keys of a score entry with ``evaluator: multiple_choice``."""

    chat_template_args: Annotated[TemplateArgs, AfterValidator(refuse_thoughts)] = None
    choices: Texts = Field(description="the key of the list of choices, or a key for each choice")
    gold: str = Field(
        "answer", description="the key of the right one: place from 0, letter or text"
    )
    metric: Literal["acc", "acc_norm", "acc_bytes", "margin", "probability"] = Field(
        "acc", description="what to count"
    )


class MultipleChoice(Evaluator):
    """See the module, and ``protocol.Evaluator``.

    Raises:
        EvaluationError: A file, a row or the template does not do.
    """

    def __init__(self, options: MultipleChoiceOptions, folder: Path, tokenizer: Tokenizer) -> None:
        def answer_of(row: Row) -> str:
            choices, gold = _question(row, options)
            return choices[gold]

        prompts = prepare(options, folder, tokenizer, answer_of)
        self._metric = options.metric
        self._questions = [_question(row, options) for row in prompts.rows]
        shares = [1 / len(choices) for choices, _ in self._questions]
        margin = options.metric == "margin"
        super().__init__(
            prompts.facts(
                "nats" if margin else options.metric,
                higher_is_better=True,
                chance=None if margin else sum(shares) / len(shares),
                bounds=None if margin else (0.0, 1.0),
                binary=options.metric not in GRADED,
            )
        )
        self._pairs = [
            [(text, f"{gap(options, text)}{choice}") for choice in choices]
            for text, (choices, _) in zip(prompts.texts, self._questions, strict=True)
        ]
        counts = iter(count_tokens(tokenizer, [a + b for pairs in self._pairs for a, b in pairs]))
        self._tokens = [max(next(counts) for _ in pairs) for pairs in self._pairs]
        asked = zip(self._pairs, [gold for _, gold in self._questions], strict=True)
        self._fingerprint = fingerprint("multiple_choice", {"metric": options.metric}, asked)

    def fingerprint(self) -> str:
        """Return a JSON object: the metric, and a hash of prompts, choices and right ones."""
        return self._fingerprint

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; nan where a prompt is too long."""
        reasons = self.note_unfit(model, which)
        asked = [pair for i in which if i not in reasons for pair in self._pairs[i]]
        nats = iter(model.engine.loglikelihood(asked))
        values = [
            np.nan if i in reasons else self._value(i, [next(nats)[0] for _ in self._pairs[i]])
            for i in which
        ]
        return np.array(values, dtype=np.float64)

    def answers(self, model: LiveModel, which: Sequence[int]) -> list[Answer]:
        """Return the likeliest choices. See ``protocol.Evaluator.answers``."""
        check_fit(self, model, which)
        asked = [pair for i in which for pair in self._pairs[i]]
        nats = iter(model.engine.loglikelihood(asked))
        return [self._answer(i, [next(nats)[0] for _ in self._pairs[i]]) for i in which]

    def _answer(self, i: int, nats: Sequence[float]) -> Answer:
        choices, gold = self._questions[i]
        said = choices[likeliest(self._metric, choices, nats)]
        return Answer(self._pairs[i][0][0], choices[gold], said)

    def targets(self, which: Sequence[int]) -> list[Target]:
        """Return the right choices among all. See ``protocol.Evaluator.targets``."""
        self.check_positions(which)
        return [self._target(i) for i in which]

    def _target(self, i: int) -> Target:
        choices, gold = self._questions[i]
        pairs = zip(self._pairs[i], mean_sized(self._metric, choices), strict=True)
        return Target(
            tuple(Choice((pair,), size=size) for pair, size in pairs), (gold,), competing=True
        )

    def unfit(self, model: LiveModel, which: Sequence[int]) -> dict[int, str]:
        """Return why questions do not fit the window. See ``protocol.Evaluator.unfit``."""
        return unfit({i: self._tokens[i] for i in which}, 0, window_of(model))

    def _value(self, i: int, nats: Sequence[float]) -> float:
        choices, gold = self._questions[i]
        if self._metric in GRADED:
            return GRADED[self._metric](nats, gold)
        return float(likeliest(self._metric, choices, nats) == gold)


def _question(row: Row, options: MultipleChoiceOptions) -> tuple[tuple[str, ...], int]:
    """Return the choices, and the place of the right one."""
    choices = _choices(row, options.choices)
    if len(choices) < 2 or "" in choices:
        raise EvaluationError(
            f"{row.place}: expected at least two choices, none of them empty, got {list(choices)}"
        )
    return choices, _place(row, options.gold, choices)


def _choices(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(keys, str):
        return tuple(row.text(key) for key in keys)
    listed = row.value(keys)
    if not isinstance(listed, list):
        raise EvaluationError(f"{row.place}: {keys}: expected a list of choices, got {listed!r}")
    return tuple(written(x, f"{row.place}: {keys}[{k}]") for k, x in enumerate(listed))


def _place(row: Row, key: str, choices: tuple[str, ...]) -> int:
    """Return which choice is the right one; refuse where two readings disagree."""
    gold, text = row.value(key), row.text(key)
    found = {k for k, choice in enumerate(choices) if choice == text}
    place = gold if isinstance(gold, int) else LETTERS.find(text) if len(text) == 1 else -1
    if 0 <= place < len(choices):
        found.add(place)
    if len(found) == 1:
        return found.pop()
    rule = "may mean several of" if found else "is neither a place from 0, a letter nor a text of"
    raise EvaluationError(f"{row.place}: {key}: {gold!r} {rule} the choices {list(choices)}")


EVALUATOR = EvaluatorPlugin(
    name="multiple_choice",
    meaning="your own multiple-choice questions in JSON lines",
    options=MultipleChoiceOptions,
    open=MultipleChoice,
)

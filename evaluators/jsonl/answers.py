"""Answers that the model writes: what all evaluators of such answers do alike."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from evaluators.answer import Answer
from evaluators.chat_prompts import end_of_turn, end_token
from evaluators.engines.context_window import check_fit, count_tokens, unfit, window_of
from evaluators.json_rows import Row
from evaluators.jsonl.prompts import SEPARATOR, PromptOptions, Prompts
from evaluators.protocol import Evaluator, LiveModel, ScoreVector, Tokenizer, fingerprint
from evaluators.thinking import ThinkEnd, check_end, thoughts_of
from merge_core.errors import ParameterError
from merge_core.validation import Texts


class GenerationOptions(PromptOptions):
    """The keys that decide an answer. It is always the greedy one."""

    stop: Texts | None = Field(
        None,
        description="what ends an answer; an empty line, or in a chat nothing but its end token",
    )
    max_tokens: int = Field(256, ge=1, description="most tokens of an answer, thoughts included")
    think_end_token: ThinkEnd = None


class FreeAnswerOptions(GenerationOptions):
    """The same, where no answer is the right one and only examples need one."""

    gold: str | None = Field(None, description="the key of an example's answer, with num_fewshot")


def known_answer(options: FreeAnswerOptions, row: Row) -> str:
    """Return the answer that a row has for examples, or nothing."""
    return "" if options.gold is None else row.text(options.gold)


def example_answer(options: FreeAnswerOptions) -> Callable[[Row], str]:
    """Return what reads an example's answer.

    Raises:
        ParameterError: There are to be examples, but no key of their answers.
    """
    key = options.gold
    if options.num_fewshot and key is None:
        raise ParameterError(
            f"num_fewshot is {options.num_fewshot}, so `gold` must name the key of the answers"
        )
    return lambda row: row.text(key or "")


class AnswerEvaluator(Evaluator):
    """Asks the model to write; a subclass says what an answer is worth.

    Args:
        prompts: What to ask.
        options: How.
        tokenizer: Counts the tokens of prompts.
        name: The evaluator's.
        unit, higher_is_better, bounds, binary: See ``facts.TaskFacts``.
        settings: What else decides a score, as JSON values.
        known: Per prompt, what an answer is compared to.

    ``texts`` are the prompts; ``ending`` is what a right answer ends with: in a chat the end of its
    turn, else the first stop string, or the end token where there is none.
    """

    def __init__(
        self,
        prompts: Prompts,
        options: GenerationOptions,
        tokenizer: Tokenizer,
        *,
        name: str,
        unit: str,
        higher_is_better: bool = True,
        settings: Mapping[str, Any],
        known: Sequence[object],
        bounds: tuple[float, float] | None = None,
        binary: bool = False,
    ) -> None:
        super().__init__(
            prompts.facts(unit, higher_is_better=higher_is_better, bounds=bounds, binary=binary)
        )
        self.rows = prompts.rows
        self.texts = prompts.texts
        self._tokens = count_tokens(tokenizer, prompts.texts)
        stops = [] if options.apply_chat_template else [SEPARATOR]
        if options.stop is not None:
            stops = [options.stop] if isinstance(options.stop, str) else list(options.stop)
        self._most = options.max_tokens
        self.ending = _ending(options, stops, tokenizer)
        self._how = {"until": stops, "max_gen_toks": options.max_tokens, "do_sample": False}
        check_end(options.file, tokenizer, options.think_end_token)
        self._how |= thoughts_of(options.think_end_token)
        asked = zip(prompts.texts, known, strict=True)
        self._fingerprint = fingerprint(name, {**settings, **self._how}, asked)

    @abstractmethod
    def values(self, answers: Sequence[tuple[int, str]]) -> Sequence[float]:
        """Return the score of each ``(position, answer)``; nan with an entry in ``failures``."""

    def fingerprint(self) -> str:
        """Return a JSON object: how answers are made and scored, a hash of what is asked."""
        return self._fingerprint

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; nan where a prompt is too long."""
        reasons = self.note_unfit(model, which)
        asked = [i for i in which if i not in reasons]
        said = self._written(model, asked)
        found = iter(self.values(list(zip(asked, said, strict=True))))
        values = [math.nan if i in reasons else next(found) for i in which]
        return np.array(values, dtype=np.float64)

    def answers(self, model: LiveModel, which: Sequence[int]) -> list[Answer]:
        """Return what the model writes. See ``protocol.Evaluator.answers``."""
        check_fit(self, model, which)
        said = self._written(model, which)
        return [Answer(self.texts[i], self.right(i), x) for i, x in zip(which, said, strict=True)]

    def right(self, i: int) -> str:
        """Return an item's right answers, see ``Answer.right``; by default none is known."""
        return ""

    def _written(self, model: LiveModel, which: Sequence[int]) -> list[str]:
        return model.engine.generate_until([(self.texts[i], self._how) for i in which])

    def prompts(self, which: Sequence[int]) -> list[str]:
        """Return what the model is asked. See ``protocol.Evaluator.prompts``."""
        self.check_positions(which)
        return [self.texts[i] for i in which]

    def generation(self, which: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return how answers are written. See ``protocol.Evaluator.generation``."""
        self.check_positions(which)
        return [self._how] * len(which)

    def unfit(self, model: LiveModel, which: Sequence[int]) -> dict[int, str]:
        """Return why prompts do not fit the window. See ``protocol.Evaluator.unfit``."""
        return unfit({i: self._tokens[i] for i in which}, self._most, window_of(model))


def _ending(options: GenerationOptions, stops: Sequence[str], tokenizer: Tokenizer) -> str:
    if options.apply_chat_template:
        return end_of_turn(tokenizer)
    return next(filter(None, stops), end_token(tokenizer))

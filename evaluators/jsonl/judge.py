"""Another model, behind an OpenAI-compatible endpoint, scores the answers against a rubric.

    evaluator: judge
    file: questions.jsonl
    prompt: "{{ question }}"
    rubric: |
      Question: {{ question }}
      Answer: {{ answer }}
      How helpful is the answer, from 0 to 10? Reply with JSON: {"score": <number>}
    base_url: http://localhost:8000/v1
    model: Qwen/Qwen3-32B
    api_key_env: OPENAI_API_KEY       # the variable's name; the key itself is stored nowhere

A key goes to this machine, or by https to a host that the command line names (``--send-key``).

A judge that answers without a number between ``low`` and ``high``, or refuses a question, makes a
failed item: nan with its reason in ``failures``, never a 0. One that is down is an error.
Questions and answers leave the machine for ``base_url``. What a judge says is only as repeatable
as the judge.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluators.jsonl.answers import (
    AnswerEvaluator,
    FreeAnswerOptions,
    example_answer,
    known_answer,
)
from evaluators.jsonl.compare import finder
from evaluators.jsonl.judge_client import JudgeClient
from evaluators.jsonl.judge_key import check_address, key_for
from evaluators.jsonl.prompts import prepare, template
from evaluators.protocol import Tokenizer
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from merge_core.errors import ParameterError
from merge_core.validation import Number

_MOST = 2**15  # characters of a reply that may hold the score; words before it may be more


class JudgeOptions(FreeAnswerOptions):
    """The keys of a score entry with ``evaluator: judge``."""

    rubric: str = Field(description="a Jinja template over a line's keys and `answer`, the model's")
    base_url: str = Field(description="of the endpoint, such as http://localhost:8000/v1")
    model: str = Field(description="the judge's name there")
    api_key_env: str | None = Field(
        None, description="the environment variable that holds the key; *_API_KEY"
    )
    score_regex: str | None = Field(
        None, description="the score in the reply: first match, first group; instead of JSON"
    )
    score_key: str = Field("score", description="the score's key in the reply's JSON object")
    low: Number = Field(0, description="least score")
    high: Number = Field(10, description="greatest score")
    reply_tokens: int = Field(512, ge=1, description="most tokens of a reply")
    timeout: Number = Field(60, gt=0, le=3600, description="seconds until a try has failed")
    retries: int = Field(3, ge=0, le=100, description="further tries after the first")
    concurrency: int = Field(4, ge=1, le=256, description="most questions at a time")


class Judge(AnswerEvaluator):
    """See the module, and ``protocol.Evaluator``.

    Raises:
        EvaluationError: A file, a row or a template does not do, or the key is not there.
        ParameterError: An option's value does not do.
    """

    def __init__(self, options: JudgeOptions, folder: Path, tokenizer: Tokenizer) -> None:
        if not options.low < options.high:
            raise ParameterError(f"low must be below high, got {options.low} and {options.high}")
        self._options = options
        self._find = finder(options.score_regex, "score_regex")
        self._client = _client(options)
        self._rubric = template(options.rubric, "rubric")
        prompts = prepare(options, folder, tokenizer, example_answer(options))
        for row in prompts.rows:
            self._rubric(row.place, {**row.values, "answer": ""})  # a bad one is known now
        names = {"rubric", "base_url", "model", "score_regex", "score_key", "low", "high"}
        super().__init__(
            prompts,
            options,
            tokenizer,
            name="judge",
            unit="points",
            settings=options.model_dump(include={*names, "reply_tokens"}),
            known=[row.values for row in prompts.rows],
            bounds=(options.low, options.high),
        )

    def values(self, answers: Sequence[tuple[int, str]]) -> list[float]:
        """Ask the judge about each answer; nan where it gave no score.

        Raises:
            EvaluationError: It is down, or does not let us in.
        """
        replies = self._client.ask([self._question(i, text) for i, text in answers])
        values = []
        for (i, _), reply in zip(answers, replies, strict=True):
            value, failure = self._score(reply.text)
            if reply.failure or failure:
                value = math.nan
                self.failures[self.items[i].id] = reply.failure or failure
            values.append(value)
        return values

    def right(self, i: int) -> str:
        """Return the answer that the line has under ``gold``, if it has one."""
        return known_answer(self._options, self.rows[i])

    def targets(self, which: Sequence[int]) -> list[Target]:
        """There are none. See ``protocol.Evaluator.targets``.

        Raises:
            NoTargetsError: Always.
        """
        raise self.no_targets("a judge scores what the model writes; no answer is the right one")

    def _question(self, i: int, answer: str) -> str:
        row = self.rows[i]
        return self._rubric(row.place, {**row.values, "answer": answer})

    def _score(self, reply: str) -> tuple[float, str]:
        """Return the score and no reason, or nan and the reason why there is none."""
        low, high = self._options.low, self._options.high
        told = self._told(reply)
        try:
            value = math.nan if isinstance(told, bool) else float(told)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if low <= value <= high:  # also refuses nan
            return value, ""
        wanted = f"a number from {low:g} to {high:g}"
        return math.nan, f"the judge replied without {wanted}: {reply[:120]!r}"

    def _told(self, reply: str) -> Any:
        if self._options.score_regex is not None:
            return self._find(reply)
        key = self._options.score_key
        told = [x[key] for x in _objects(reply) if key in x]
        return told[-1] if told else None


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects at a text's end, in their order; judges write words around them.

    No more than ``_MOST`` characters are looked at: what begins in vain is read again from the
    next brace, in a time that grows with the square of the length.
    """
    text = text[-_MOST:]
    decoder, found, start = json.JSONDecoder(), [], text.find("{")
    while start >= 0:
        end = start + 1
        with suppress(ValueError, RecursionError):
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        start = text.find("{", end)
    return found


def _client(options: JudgeOptions) -> JudgeClient:
    check_address(options.base_url)
    return JudgeClient(
        base_url=options.base_url,
        model=options.model,
        key=key_for(options.api_key_env, options.base_url),
        timeout=options.timeout,
        retries=options.retries,
        concurrency=options.concurrency,
        max_tokens=options.reply_tokens,
    )


EVALUATOR = EvaluatorPlugin(
    name="judge",
    meaning="another model scores the answers against your rubric",
    options=JudgeOptions,
    open=Judge,
)

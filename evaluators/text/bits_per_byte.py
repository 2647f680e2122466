"""Likelihood of held-out documents: ``nats / ln 2 / utf-8 bytes``. Lower is better.

    evaluator: bits_per_byte
    file: held-out.jsonl         # or .parquet, .txt, or a folder of .txt files: see ``documents``
    text: body                   # the key of the text; `text` if it is not said
    cluster: book                # the key of what documents share; else only twins are one cluster

Bytes, not tokens, so that models with different tokenizers can be compared. The mean over items is
the mean over documents: short ones count as much as long ones.

A document longer than the model's window is read through a sliding window, and every token is
scored once. Without options: as lm-eval does, windows of the model's whole length side by side,
each with one token of context. With ``stride`` every window after the first scores at most its last
``stride`` tokens and has the others as context: nearer to what the model can do, and about
``window / stride`` times the work. These windows are cut at blanks where there are any, see
``sliding``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import Field

from evaluators.answer import Answer
from evaluators.cluster_keys import facts_of
from evaluators.engines.context_window import window_of
from evaluators.protocol import (
    Evaluator,
    LiveModel,
    ScoreVector,
    TaskFacts,
    Tokenizer,
    fingerprint,
    items_of,
)
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Choice, Target
from evaluators.text.documents import clusters_in, read_documents
from evaluators.text.windows import pieces, spans_of
from merge_core.errors import EvaluationError, ParameterError
from merge_core.validation import File, StrictModel


class BitsPerByteOptions(StrictModel):
    """The keys of a score entry with ``evaluator: bits_per_byte``."""

    file: File = Field(description="held-out documents: .txt, .jsonl, .parquet, a folder of .txt")
    text: str = Field("text", description="the key of the text in .jsonl and .parquet")
    window: int | None = Field(None, ge=2, description="tokens seen at once; the model's length")
    stride: int | None = Field(None, ge=1, description="tokens scored by a window; all of it")
    cluster: str | None = Field(
        None, description="in .jsonl and .parquet: the key of what documents share"
    )


class BitsPerByte(Evaluator):
    """See the module, and ``protocol.Evaluator``.

    Raises:
        EvaluationError: The documents cannot be read, one of them is empty, or one lacks the key of
            its cluster.
        ParameterError: ``stride`` is more than ``window``.
    """

    def __init__(self, options: BitsPerByteOptions, folder: Path, tokenizer: Tokenizer) -> None:
        if options.window and options.stride and options.stride > options.window:
            rule = f"stride must be at most window, {options.window}, got {options.stride}"
            raise ParameterError(rule)
        file = folder / options.file
        self._texts = read_documents(file, options.text)
        super().__init__(
            TaskFacts(
                task=file.stem,
                unit="bits/byte",
                higher_is_better=False,
                items=items_of(file.stem, self._texts),
                documents=tuple(item.id for item in items_of("", self._texts)),
                source="",
                **facts_of(clusters_in(file, options.cluster)),
            )
        )
        self._options = options
        self._tokenizer = tokenizer
        self._pieces = cache(self._cut)
        self._bytes = [len(text.encode()) for text in self._texts]
        facts = options.model_dump(include={"window", "stride"})
        self._fingerprint = fingerprint("bits_per_byte", facts, self._texts)

    def fingerprint(self) -> str:
        """Return a JSON object: window, stride, and a hash of the documents."""
        return self._fingerprint

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; no item is ever nan.

        Raises:
            EvaluationError: ``window`` or ``stride`` is more than the model takes, or a document
                cannot be cut.
        """
        self.check_positions(which)
        if not which:
            return np.empty(0, dtype=np.float64)
        if self._options.window is None and self._options.stride is None:
            nats = model.engine.loglikelihood_rolling([self._texts[i] for i in which])
        else:
            nats = self._sliding(model, which)
        bits = [-x / math.log(2) / self._bytes[i] for i, x in zip(which, nats, strict=True)]
        return np.array(bits, dtype=np.float64)

    def answers(self, model: LiveModel, which: Sequence[int]) -> list[Answer]:
        """There are none. See ``protocol.Evaluator.answers``.

        Raises:
            NoAnswersError: Always.
        """
        raise self.no_answers("a document is read, and nothing is said to it")

    def targets(self, which: Sequence[int]) -> list[Target]:
        """Return the documents themselves. See ``protocol.Evaluator.targets``.

        Raises:
            NoTargetsError: ``stride`` goes without ``window``, which only a model knows.
        """
        self.check_positions(which)
        stride, window = self._options.stride, self._options.window
        if stride and not window:
            raise self.no_targets("`stride` needs a `window` here; say how many tokens are seen")
        return [self._target(i, window) for i in which]

    def prompts(self, which: Sequence[int]) -> list[str]:
        """Return the documents. See ``protocol.Evaluator.prompts``."""
        self.check_positions(which)
        return [self._texts[i] for i in which]

    def _target(self, i: int, window: int | None) -> Target:
        texts = (self._texts[i],) if window is None else tuple(self._pieces(i, window))
        return Target((Choice(texts, size=math.log(2) * self._bytes[i]),))

    def _sliding(self, model: LiveModel, which: Sequence[int]) -> list[float]:
        window = self._window(model)
        groups = [self._pieces(i, window) for i in which]
        parts = iter(model.engine.loglikelihood([pair for group in groups for pair in group]))
        return [math.fsum(next(parts)[0] for _ in group) for group in groups]

    def _window(self, model: LiveModel) -> int:
        longest = window_of(model)
        for name in ("window", "stride"):
            size = getattr(self._options, name)
            if size and longest is not None and size > longest:
                raise EvaluationError(
                    f"{self.task}: {name} is {size}, but the model takes {longest} tokens"
                )
        window = self._options.window or longest
        if window is None:
            raise EvaluationError(
                f"{self.task}: the model does not say how much it takes; set `window`"
            )
        return window

    def _cut(self, i: int, window: int) -> list[tuple[str, str]]:
        text = self._texts[i]
        spans = spans_of(self._tokenizer, text)
        return pieces(text, spans, window, self._options.stride or window)


EVALUATOR = EvaluatorPlugin(
    name="bits_per_byte",
    meaning="likelihood of held-out documents, whatever the tokenizer",
    options=BitsPerByteOptions,
    open=BitsPerByte,
)

"""Does what the model writes mention a word? A file with a prompt, a tab and a word per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from evaluators.protocol import (
    Evaluator,
    LiveModel,
    ScoreVector,
    TaskFacts,
    fingerprint,
    items_of,
)
from evaluators.registry import EvaluatorPlugin
from evaluators.target import Target
from merge_core.errors import EvaluationError
from merge_core.validation import File, StrictModel


class MentionsOptions(StrictModel):
    """The keys of a score entry with ``evaluator: mentions``."""

    file: File = Field(description="prompt, tab, word; relative to the study file")
    max_tokens: int = Field(32, ge=1, description="most tokens of an answer")


class Mentions(Evaluator):
    """1 where the answer has the word in it, else 0. See ``evaluators.protocol.Evaluator``."""

    def __init__(self, options: MentionsOptions, folder: Path, tokenizer: Any) -> None:
        lines = (folder / options.file).read_text(encoding="utf-8").splitlines()
        self._pairs = [tuple(line.split("\t")) for line in lines]
        for number, pair in enumerate(self._pairs, start=1):
            if len(pair) != 2:
                raise EvaluationError(
                    f"{options.file}:{number}: expected a prompt, a tab and a word, "
                    f"got {len(pair)} columns"
                )
        self._how = {"until": [], "max_gen_toks": options.max_tokens, "do_sample": False}
        task = Path(options.file).stem
        items = items_of(task, self._pairs)  # ids from the content
        super().__init__(
            TaskFacts(
                task=task,
                unit="mentions",
                higher_is_better=True,
                items=items,
                bounds=(0, 1),
                binary=True,  # 0 or 1, nothing between
            )
        )

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items on the weights that the model has now."""
        self.check_positions(which)
        asked = [(self._pairs[i][0], self._how) for i in which]
        answers = model.engine.generate_until(asked)
        found = [self._pairs[i][1] in text for i, text in zip(which, answers, strict=True)]
        return np.array(found, dtype=np.float64)

    def targets(self, which: Sequence[int]) -> list[Target]:
        """Return what should be said, for searches that follow gradients; may be left out."""
        self.check_positions(which)
        return [Target.written(self._pairs[i][0], [f" {self._pairs[i][1]}"]) for i in which]

    def fingerprint(self) -> str:
        """Name everything but model and engine that could change a score."""
        return fingerprint("mentions", {"version": 1, **self._how}, self._pairs)


EVALUATOR = EvaluatorPlugin(
    name="mentions",
    meaning="does the answer mention a word?",
    options=MentionsOptions,
    open=Mentions,
)

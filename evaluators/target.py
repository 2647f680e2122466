"""What an item wants said, as a plain value: enough for an engine to make a loss of it.

    n_k   nats of choice k: log-likelihoods of its texts, summed        s_k   its size

    free (the right answers are there, all other texts are wrong)
        loss = -log(sum over right k of exp n_k) / (mean of their s_k)
    competing (all choices are there, only they are compared)
        l_k = n_k / s_k
        loss = log(sum over all k of exp l_k) - log(sum over right k of exp l_k)

A free target with one choice is its mean negative log-likelihood by token (or by what its size
counts); several right answers count by the probability that any of them is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from merge_core.errors import EvaluationError

Text: TypeAlias = tuple[str, str] | str


@dataclass(frozen=True)
class Choice:
    """Texts that count together.

    Args:
        texts: ``(context, continuation)``, encoded as ``Engine.loglikelihood`` encodes them, or one
            whole text, cut into windows as ``Engine.loglikelihood_rolling`` does; at least one.
        less: Texts whose nats are taken off, such as those of an answer without its question.
        size: What the nats are divided by, above 0; None: the number of tokens of ``texts``.

    Raises:
        EvaluationError: There are no texts, or the size is not above 0 and finite.
    """

    texts: tuple[Text, ...]
    less: tuple[Text, ...] = ()
    size: float | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise EvaluationError("a choice of a target: expected at least one text, got none")
        if self.size is not None and not 0 < self.size < math.inf:
            raise EvaluationError(f"a choice of a target: size must be above 0, got {self.size}")


@dataclass(frozen=True)
class Target:
    """What one item wants said. See the module for the loss that an engine makes of it.

    Args:
        choices: At least one.
        right: Places in ``choices`` of those that are right, at least one.
        competing: Whether the choices are compared with each other, or the right ones with all
            else that could be said; then the others do not count.

    Raises:
        EvaluationError: There is no choice, no right one, or a place is outside.
    """

    choices: tuple[Choice, ...]
    right: tuple[int, ...] = (0,)
    competing: bool = False

    def __post_init__(self) -> None:
        places = set(self.right)
        if not places or len(places) < len(self.right) or places - {*range(len(self.choices))}:
            raise EvaluationError(
                f"a target: `right` must be different places of {len(self.choices)} choices, "
                f"at least one, got {list(self.right)}"
            )

    @property
    def start(self) -> str:
        """What is read first: the context of a right choice, or the text that has none."""
        text = self.choices[self.right[0]].texts[0]
        return text if isinstance(text, str) else text[0] or text[1]

    @classmethod
    def written(cls, context: str, answers: Sequence[str]) -> Target:
        """Return a target that one of some answers is written after a context.

        Args:
            context: The prompt.
            answers: Texts with all that stands between them and the prompt, and with what ends
                them; the first ``MOST_ANSWERS`` different ones count.
        """
        kept = [*dict.fromkeys(answers)][:MOST_ANSWERS]
        choices = tuple(Choice(((context, answer),)) for answer in kept)
        return cls(choices, tuple(range(len(choices))))


MOST_ANSWERS = 8  # of one item: each costs a row, and lists of aliases have hundreds

"""What a model said to an item, for people to look at; no score is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What was asked, what is right and what a model said to it; all three are whole.

    Args:
        prompt: What the model read.
        right: The right answers, with ``|`` between them; "" where none is known.
        said: What it wrote, before anything is cut from it; of choices the one that it likes best.
    """

    prompt: str
    right: str
    said: str

    @property
    def is_text(self) -> bool:
        """Whether all three are texts, as a plugin may not know."""
        return all(isinstance(x, str) for x in (self.prompt, self.right, self.said))


def listed(right: Sequence[str]) -> str:
    """Return right answers as ``Answer.right`` has them, each once."""
    return " | ".join(dict.fromkeys(right))

"""What models said to items, as it is kept with a study: for people to look at, no score is of it.

Texts are cut where they are stored. What is damaged is as good as nothing: it can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from evaluators.answer import Answer
from search.storage.attributes import Attributes
from search.storage.packed import deflated, inflated_json

SAMPLES = "samples"  # the study attribute with sample answers
ANSWERS = "answers"  # what those with a trial's answers begin with
MOST = 2**26  # bytes of a trial's answers; a thousand of the longest are 6 MB
LONGEST = 2000  # characters of a text that is stored: the end of a prompt, the beginning of others
CUT = "…"
Samples = dict[str, dict[str, list[dict[str, str]]]]  # task -> "gained", "lost" -> their texts
Kept = dict[str, list[Answer]]  # task -> answers to its first items; none of a task without answers


class Said:
    """The answers that a study keeps.

    Args:
        attributes: Of the study.
    """

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def samples(self, winner: object) -> Samples:
        """Return sample answers of a winner, and of the best parent then; none where none are."""
        found = self._samples()
        return dict(found["tasks"]) if found and found.get("winner") == winner else {}

    def has_samples(self, winner: int, parent: int) -> bool:
        """Return whether the sample answers of these trials are stored."""
        found = self._samples()
        return (found.get("winner"), found.get("parent")) == (winner, parent)

    def keep_samples(self, winner: int, parent: int, samples: Samples) -> None:
        """Store the sample answers of two trials, in one commit, in place of other ones."""
        self._attributes.set(SAMPLES, {"winner": winner, "parent": parent, "tasks": samples})

    def _samples(self) -> dict[str, Any]:
        found = self._attributes.values.get(SAMPLES)
        return found if isinstance(found, dict) and isinstance(found.get("tasks"), dict) else {}

    def answers(self, number: int, pool: str) -> Kept:
        """Return a trial's answers to the first items of a pool, in its order."""
        found = self._attributes.values.get(f"{ANSWERS}:{number}")
        here = isinstance(found, dict) and found.get("pool") == pool
        return unpacked(found) if here else {}

    def keep_answers(self, number: int, pool: str, answers: Mapping[str, Sequence[Answer]]) -> None:
        """Store them, cut, in one commit, in place of what was stored of the trial."""
        self._attributes.set(f"{ANSWERS}:{number}", packed(pool, answers))


def packed(pool: str, answers: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """Return answers as an attribute holds them."""
    plain = {
        task: [[end(x.prompt), start(x.right), start(x.said)] for x in said]
        for task, said in answers.items()
    }
    return {"pool": pool, "json": deflated(json.dumps(plain).encode())}


def unpacked(value: Any) -> Kept:
    """Return what such an attribute holds; nothing where it is damaged."""
    try:
        found = inflated_json(value.get("json"), MOST)
        return {
            str(task): [_answer(*texts) for texts in said] for task, said in dict(found).items()
        }
    except (AttributeError, TypeError, ValueError):
        return {}


def _answer(*texts: object) -> Answer:
    prompt, right, said = texts
    if not (isinstance(prompt, str) and isinstance(right, str) and isinstance(said, str)):
        raise TypeError("expected texts")
    return Answer(prompt, right, said)


def without(value: Any, tasks: Collection[str]) -> Any:
    """Return such an attribute without the answers to some tasks."""
    pool = value.get("pool") if isinstance(value, dict) else None
    left = {task: said for task, said in unpacked(value).items() if task not in tasks}
    return packed(pool, left) if isinstance(pool, str) else None


def start(text: str, longest: int = LONGEST) -> str:
    """Return the beginning of a text, as much as is stored, or so many characters."""
    return text if len(text) <= longest else text[: longest - 1] + CUT


def end(text: str, longest: int = LONGEST) -> str:
    """Return the end of a text, likewise."""
    return text if len(text) <= longest else CUT + text[1 - longest :]

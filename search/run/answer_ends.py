"""How answers begin and end beside what is right: settings that would let a task see it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from evaluators.answer import Answer

ENOUGH = 2  # answers that show the same


def stop_for(answers: Sequence[Answer]) -> str:
    """Return what would end right answers where they should end, in words; or nothing.

    It is what follows the right one in at least half of the answers that begin with it, where that
    is no letter, digit or blank, of which answers are made.
    """
    after = [text for text in map(_after, answers) if text is not None]
    ends = Counter(text[0] for text in after if text and not _is_part(text[0]))
    if not ends:
        return ""
    (end, count), *_ = ends.most_common(1)
    if count < ENOUGH or 2 * count < len(after):
        return ""
    return f"`stop: {_quoted(end)}` would end {count} of {len(answers)} where the right one ends"


def delimiter_for(begins: Sequence[str], answers: Sequence[Answer]) -> str:
    """Return what stands between prompts and answers instead of what the task has, or nothing.

    Args:
        begins: For each answer, what is right with the delimiter before it, as the task scores it;
            "" where that is not known.
        answers: Those that begin with the right one are looked at.
    """
    pairs = [
        (_lead(right), _lead(one.said))
        for right, one in zip(begins, answers, strict=True)
        if right and _after(one) is not None
    ]
    if len(pairs) < ENOUGH:
        return ""
    ((wanted, written), count), *_ = Counter(pairs).most_common(1)
    if wanted == written or count < len(pairs):
        return ""
    return (
        f"{count} of {len(answers)} right answers begin with {_quoted(written)} and not with "
        f"{_quoted(wanted)}, as the task has it: a search by gradient would teach that; set the "
        f"entry's `delimiter: {_quoted(written)}` (`target_delimiter` of a task of lm-eval)"
    )


def _after(one: Answer) -> str | None:
    """Return what is said after the right answer; None where it does not begin with one."""
    said = one.said.lstrip()
    rights = (x.strip() for x in one.right.split(" | "))
    return next((said[len(x) :] for x in rights if x and said.startswith(x)), None)


def _is_part(letter: str) -> bool:
    return letter.isalnum() or letter == " "


def _lead(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

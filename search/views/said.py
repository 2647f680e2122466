"""Answers of trials for people, on stdout: item by item, one trial below the other."""

from __future__ import annotations

import textwrap

from search.report.side_by_side import Heard, OfTask, SideBySide
from search.views.terminal import OUT

PROMPT, TEXT = 800, 1200  # characters that are shown of a prompt (its end), and of another text


def side_by_side(found: SideBySide) -> None:
    """Print what is shown of each task."""
    names = found.names
    for i, (task, one) in enumerate(found.tasks.items()):
        _line("\n" * (i > 0) + _head(task, one, found))
        if one.better is not None:
            _line(
                f"{names[0]} scores better than {names[1]} on {one.better:,} items, worse on "
                f"{one.worse:,}"
            )
        for heard in one.heard:
            _item(heard, names)


def _head(task: str, one: OfTask, found: SideBySide) -> str:
    pool = f"{one.items:,} items of the {found.wanted.pool} pool"
    if found.wanted.wrong:
        pool = f"{one.matching:,} that {found.names[0]} does not get right, of {pool}"
    if one.heard:
        return f"{task}: {len(one.heard)} of {pool}; scores are {one.unit}"
    return f"{task}: none of {pool} is shown" + (
        "" if not one.matching else ": it has no answers to show"
    )


def _item(heard: Heard, names: list[str]) -> None:
    _line(f"\n--- item {heard.id}")
    prompt = heard.answers[0].prompt
    _text("asked", prompt if len(prompt) <= PROMPT else f"… {prompt[-PROMPT:]}")
    _text("right", _start(heard.answers[0].right))
    for name, answer, score in zip(names, heard.answers, heard.scores, strict=True):
        scored = "not scored" if score is None else f"score {score:.4g}"
        _text(f"{name}, {scored}", _start(answer.said))


def _start(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]} …"


def _text(head: str, text: str) -> None:
    """Print a text after its head, of several lines below it; what is blank can be seen."""
    body = text if text.strip() else repr(text)
    if "\n" in body:
        body = "\n" + textwrap.indent(body, "    ", lambda line: True)
    _line(f"{head}: {body}")


def _line(text: str) -> None:
    OUT.print(text, soft_wrap=True)

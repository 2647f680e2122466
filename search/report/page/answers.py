"""What the winner and the best parent said, side by side, so that gibberish is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.report.page.found import Found
from search.report.page.html import Html, details, element, join, note, section

PROMPT = 400  # characters that are shown of a prompt at once
MOST = 4000  # of any text
KINDS = {
    "gained": "where the winner does better",
    "lost": "where the best parent does better",
}


def answers(found: Found) -> Html | None:
    """Return the section with sample answers."""
    tasks = [
        element("div", element("h3", task), *made)
        for task, kinds in found.samples.items()
        if (made := _task(kinds))
    ]
    if not tasks:
        return None
    return section(
        "Sample answers",
        "answers",
        note(
            "Report items of each task on which winner and best parent differ most, of equal "
            "differences a random sample. They show what answers look like, not how often which "
            "is better: that is said above. What is not printable is written out."
        ),
        *tasks,
    )


def _task(kinds: Mapping[str, Any]) -> list[Html]:
    made = []
    for kind, words in KINDS.items():
        rows = [_sample(one, kind) for one in kinds.get(kind) or ()]
        if rows:
            made.append(element("p", element("b", words.capitalize())))
            made.append(element("div", *rows, class_="blocks two"))
    return made


def _sample(one: Mapping[str, Any], kind: str) -> Html:
    won = kind == "gained"
    rows = [
        ("asked", _shown(one.get("prompt"), PROMPT)),
        ("right", _shown(one.get("right"), PROMPT)),
        (_verdict("winner", won), _shown(one.get("winner"), PROMPT)),
        (_verdict("best parent", not won), _shown(one.get("parent"), PROMPT)),
    ]
    said = [[element("dt", name), element("dd", words)] for name, words in rows]
    head = element("p", f"item {one.get('id', '')}", class_="meta")
    return element("div", head, element("dl", said), class_="sample")


def _verdict(who: str, better: bool) -> Html:
    return element("span", f"{who}, better" if better else who, class_="ok" if better else "bad")


def _shown(given: Any, most: int) -> Html:
    """Return a text, of a long one its end first and the whole on demand."""
    words = "; ".join(map(str, given)) if isinstance(given, list | tuple) else str(given or "")
    cut = words if len(words) <= MOST else f"… {words[-MOST:]}"
    if not cut:
        return element("pre", element("i", "nothing"), class_="said")
    if len(cut) <= most:
        return element("pre", cut, class_="said")
    return join(
        [
            element("pre", f"… {cut[-most:]}", class_="said"),
            details(f"all {len(words):,} characters", element("pre", cut, class_="said")),
        ]
    )
